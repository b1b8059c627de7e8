"""Manifests: the files of an artifact with their digests, and one digest over all of them.

The digest of a manifest is the SHA-256 of its canonical form, which anyone can compute with a shell:

    tuneforge-manifest-v1
    <sha256 of the file> <size in bytes> <path>      one such line for each file, by the UTF-8 bytes of the path

A path is relative, has `/` as separator and cannot leave the artifact; symbolic links are refused, both when a manifest
is built and when a folder is verified against one. Moving the bytes is the task of `tuneforge/blobs.py`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tuneforge.names import is_digest

_HEADER = b"tuneforge-manifest-v1\n"
_MAX_PATH_BYTES = 1024
_MAX_PART_BYTES = 255  # the limit of every file system we write to


class InvalidManifest(ValueError):
    """A manifest, or one path in it, breaks a rule of this module.

    Attributes:
        path: The path that is wrong; empty when it is the whole manifest.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path


class IntegrityError(Exception):
    """A file is not what its manifest says.

    Attributes:
        path: Path inside the artifact.
        expected: What the manifest says.
        found: What is there.
    """

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path = path
        self.expected = expected
        self.found = found

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        return type(self), (self.path, self.expected, self.found)


class StoredDamage(IntegrityError):
    """The registry's own copy of a file is damaged; bringing it again brings the same, until it is uploaded anew."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of an artifact, by content."""

    path: str
    """Path inside the artifact, see `check_path`."""
    sha256: str
    """SHA-256 of the content, 64 lower-case hexadecimal digits."""
    size_bytes: int
    """Size of the content, >= 0."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact and their common digest; make it with `Manifest.of` or `build`."""

    files: tuple[ManifestFile, ...]
    """The files, ordered by the UTF-8 bytes of their paths."""
    digest: str
    """`digest_of(files)`."""

    @classmethod
    def of(cls, files: Iterable[ManifestFile]) -> Self:
        """Returns the manifest of some files, given in any order.

        Raises:
            InvalidManifest: A path, a digest or a size is malformed, or a path comes twice.
        """
        ordered = _ordered(files)
        return cls(ordered, _digest(ordered))

    @property
    def size_bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(file.size_bytes for file in self.files)

    def file(self, path: str) -> ManifestFile | None:
        """Returns the file at a path, None where there is none."""
        return next((file for file in self.files if file.path == path), None)

    def to_json(self) -> str:
        """Returns the manifest as JSON text, for a `manifest.json` beside the files."""
        return json.dumps({"digest": self.digest, "files": [asdict(file) for file in self.files]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Returns the manifest that `to_json` wrote.

        Raises:
            InvalidManifest: The text is not such a manifest, or its digest is not that of its files.
        """
        try:
            content = json.loads(text)
            manifest = cls.of(ManifestFile(**file) for file in content["files"])
            digest = content["digest"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidManifest("", f"it is not a manifest: {error}") from None
        if manifest.digest != digest:
            raise InvalidManifest("", f"its digest is {digest}, that of its files is {manifest.digest}")
        return manifest


def check_path(path: str) -> str:
    """Returns the path when it may stand in a manifest: relative, `/` as separator, no way out of the artifact.

    Raises:
        InvalidManifest: It is absolute, has an empty, `.` or `..` part, a backslash or a control character, or is too
            long.
    """
    problem = _path_problem(path)
    if problem:
        raise InvalidManifest(path, f"the path {path[:200]!r} {problem}")
    return path


def _path_problem(path: str) -> str:
    if not path:
        return "is empty"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):  # a line break would forge a row
        return "has a control character"
    if "\\" in path or path.startswith("/") or path[1:2] == ":":
        return "is not relative with / as separator"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    parts = encoded.split(b"/")
    if any(part in {b"", b".", b".."} for part in parts):
        return "has an empty part, '.' or '..'"
    if len(encoded) > _MAX_PATH_BYTES or max(map(len, parts)) > _MAX_PART_BYTES:
        return f"is longer than {_MAX_PATH_BYTES} bytes, or a part than {_MAX_PART_BYTES}"
    return ""


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content, 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(files: Iterable[ManifestFile]) -> str:
    """Returns the digest over some files, given in any order: see the module's text.

    Raises:
        InvalidManifest: A path, a digest or a size is malformed, or a path comes twice.
    """
    return _digest(_ordered(files))


def _ordered(files: Iterable[ManifestFile]) -> tuple[ManifestFile, ...]:
    ordered = tuple(sorted(files, key=lambda file: file.path.encode("utf-8", "surrogatepass")))
    seen: set[str] = set()
    for file in ordered:
        check_path(file.path)
        if not is_digest(file.sha256):
            raise InvalidManifest(file.path, f"{file.path}: sha256 is not 64 lower-case hexadecimal digits")
        if file.size_bytes < 0:
            raise InvalidManifest(file.path, f"{file.path}: size_bytes is {file.size_bytes}, it is 0 or more")
        if file.path in seen:
            raise InvalidManifest(file.path, f"{file.path}: the path comes twice")
        seen.add(file.path)
    for file in ordered:
        parts = file.path.split("/")
        if clash := next((p for n in range(1, len(parts)) if (p := "/".join(parts[:n])) in seen), None):
            raise InvalidManifest(file.path, f"{file.path}: {clash} is a file, it cannot be a folder too")
    return ordered


def _digest(ordered: Iterable[ManifestFile]) -> str:
    digest = hashlib.sha256(_HEADER)
    for file in ordered:
        digest.update(f"{file.sha256} {file.size_bytes} {file.path}\n".encode())
    return digest.hexdigest()


def build(folder: Path, *, exclude: Collection[str] = ()) -> Manifest:
    """Reads every file below a folder and returns its manifest.

    Args:
        folder: The artifact's folder.
        exclude: Paths inside it that do not belong to the artifact, such as `manifest.json`.

    Raises:
        InvalidManifest: There is a symbolic link or something that is no regular file, or a path breaks a rule.
        FileNotFoundError: There is no such folder.
    """
    found = files_below(folder)
    return Manifest.of(
        ManifestFile(path, sha256_file(folder / path), size) for path, size in found.items() if path not in exclude
    )


def verify(
    folder: Path,
    manifest: Manifest,
    *,
    exclude: Collection[str] = (),
    sha256: Callable[[Path], str] = sha256_file,
) -> None:
    """Checks that a folder holds exactly the files of a manifest, by reading all of them.

    Args:
        folder: The artifact's folder.
        manifest: What it must hold.
        exclude: Paths inside it that do not belong to the artifact.
        sha256: Returns the digest of a file's content.

    Raises:
        IntegrityError: A file is missing, has another size or content, is a link, cannot be read, or is not in the
            manifest.
    """
    try:
        found = {path: size for path, size in files_below(folder).items() if path not in exclude}
    except InvalidManifest as error:
        raise IntegrityError(error.path, "a regular file", str(error)) from None
    except OSError as error:
        raise IntegrityError(".", "a readable folder", error.strerror or str(error)) from None
    for file in manifest.files:
        size = found.pop(file.path, None)
        if size is None:
            raise IntegrityError(file.path, f"sha256 {file.sha256}", "no file")
        if size != file.size_bytes:
            raise IntegrityError(file.path, f"{file.size_bytes} bytes", f"{size} bytes")
        try:
            digest = sha256(folder / file.path)
        except OSError as error:
            raise IntegrityError(file.path, "a readable file", error.strerror or str(error)) from None
        if digest != file.sha256:
            raise IntegrityError(file.path, f"sha256 {file.sha256}", f"sha256 {digest}")
    if found:
        raise IntegrityError(min(found), "no such file", "a file that the manifest does not list")


def files_below(folder: Path) -> dict[str, int]:
    """Returns path → size in bytes of every file below a folder.

    Raises:
        InvalidManifest: There is a symbolic link or something that is no regular file.
        FileNotFoundError: There is no such folder.
    """
    found: dict[str, int] = {}
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                path = f"{below}/{entry.name}" if below else entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                elif stat.S_ISREG(status.st_mode):
                    found[path] = status.st_size
                else:
                    kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a regular file"
                    raise InvalidManifest(path, f"{path} is {kind}; an artifact holds regular files only")
    return found
