"""Reads back what is stored of a version, and says all that is wrong with it."""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs.checking import UNREADABLE
from services.registry.folder import Folder
from services.registry.library import Library
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.signatures import Signature, SignatureError, verify

_CHUNK_BYTES = 4 * 1024 * 1024
_REPORT_EVERY = 8
"""Chunks between two messages: 32 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    path: str
    """The file; empty when it is the signature."""
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the reading is."""

    path: str
    verified_bytes: int
    total_bytes: int
    is_done: bool = False
    problems: tuple[Problem, ...] = ()


async def verify_version(
    library: Library, name: str, manifest: Manifest, signature: Signature | None, keys: Mapping[str, str]
) -> AsyncGenerator[Progress, None]:
    """Checks signature and files; yields how far it is, and in the end all that is wrong.

    Args:
        library: Where the bytes are.
        name: Resource name of the version.
        manifest: What is stored of it.
        signature: What is stored of it; None: nothing.
        keys: Id -> PEM text of the keys that this registry ever signed with.
    """
    problems = _signature_problems(name, manifest, signature, keys)
    total, done = manifest.size_bytes, 0
    for file in manifest.files:
        part = Manifest.of([file])  # one file at a time, so that one which cannot be fetched does not hide the others
        known = len(problems)
        try:
            stored = (await library.stored([file.sha256]))[file.sha256]
            async with library.fetched(part, is_fresh=True) as folder:
                async for count in _read(library, folder, file, problems):
                    done += count
                    yield Progress(path=file.path, verified_bytes=done, total_bytes=total, problems=tuple(problems))
            await library.note_reading(stored, is_whole=len(problems) == known)
        except OSError as error:
            problems.append(_damage(file, f"its blob {file.sha256} cannot be read: {error.strerror}"))
            if error.errno in UNREADABLE:
                await library.note_reading(stored, is_whole=False)
        except ServiceError as error:
            if error.reason is not Reason.BLOB_DAMAGED:
                raise
            problems.append(_damage(file, error.message))
    yield Progress(path="", verified_bytes=done, total_bytes=total, is_done=True, problems=tuple(problems))


async def _read(
    library: Library, folder: Folder, file: ManifestFile, problems: list[Problem]
) -> AsyncGenerator[int, None]:
    digest = hashlib.sha256()
    size = unsaid = chunks = 0
    opened = await library.open(folder.paths[file.path].open, "rb")
    try:
        while data := await library.transfer(opened.read, _CHUNK_BYTES):
            await library.transfer(digest.update, data)
            size += len(data)
            unsaid += len(data)
            chunks += 1
            if chunks % _REPORT_EVERY == 0:
                yield unsaid
                unsaid = 0
    finally:
        library.close_later(opened)
    if size != file.size_bytes:
        problems.append(_damage(file, f"its blob has {size} bytes, the manifest says {file.size_bytes}"))
    elif digest.hexdigest() != file.sha256:
        problems.append(_damage(file, f"its blob has the sha256 {digest.hexdigest()}, the manifest says {file.sha256}"))
    yield unsaid


def _damage(file: ManifestFile, what: str) -> Problem:
    return Problem(path=file.path, reason=Reason.INTEGRITY, message=f"{file.path}: {what}")


def _signature_problems(
    name: str, manifest: Manifest, signature: Signature | None, keys: Mapping[str, str]
) -> list[Problem]:
    if signature is None:
        return [Problem(path="", reason=Reason.SIGNATURE, message=f"{name} has no signature")]
    try:
        verify(signature, manifest, keys, name=name)
    except SignatureError as error:
        return [Problem(path="", reason=Reason.SIGNATURE, message=f"{name}: {error}")]
    return []
