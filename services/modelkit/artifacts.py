"""Files of model versions on this machine: fetched by digest, shared between versions, verified when they are read.

The cache has `blobs/<sha256>` and, for each version, `artifacts/<digest of the manifest>/` made of hard links into it,
so that equal files lie on the disk once. An artifact appears whole or not at all. Nothing in the cache is trusted: who
loads an artifact calls `verify`, and a damaged copy is discarded and fetched anew the next time. Needs no torch.
"""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal, Protocol

from tuneforge.manifest import IntegrityError, Manifest, check_path, verify

ArtifactKind = Literal["model", "adapter"]
_PIECE_BYTES: Final = 16 * 1024 * 1024
"""What a check adds to the memory of its process."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LocalArtifact:
    """The files of one version on this machine."""

    folder: Path
    """Where they lie; read only."""
    manifest: Manifest
    """What they must be."""
    kind: ArtifactKind
    """A whole model, or an adapter for the layers below it."""
    ref_version: str
    """Resource name of the version, e.g. `projects/default/models/m/versions/1`; empty for a local folder."""
    digest: str
    """Digest of the manifest, 64 hexadecimal digits."""

    def verify(self) -> None:
        """Reads every byte and compares it with the manifest.

        Raises:
            IntegrityError: a file is missing, too many, or not what the manifest says; it is named.
        """
        verify(self.folder, self.manifest, sha256=_sha256)


def _sha256(path: Path) -> str:
    """Returns the digest of a file that others load at the same time, in large pieces.

    A read of each small piece would ask for the interpreter's lock, for which a thread waits 5 ms while another one
    computes; so the check of a model took longer than its load, beside which it runs. Nor is the file mapped: a disk
    that cannot be read, or a file that is cut meanwhile, would end the process by SIGBUS.

    Raises:
        OSError: The disk cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        piece = memoryview(bytearray(max(1, min(_PIECE_BYTES, os.fstat(file.fileno()).st_size))))
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


class BlobSource(Protocol):
    """Where blobs come from: `tuneforge.blobs.BlobClient`, or a stand-in."""

    def download(self, sha256: str, size_bytes: int, dest: Path) -> None:
        """Brings the blob to `dest` and verifies it; keeps a file that has the right content already."""
        ...


def fetch(manifest: Manifest, blobs: BlobSource, cache_folder: Path) -> Path:
    """Brings the files of a manifest into the cache, unless they are there.

    Safe to call from several threads and processes at once, for the same manifest too.

    Args:
        manifest: what to bring.
        blobs: where missing blobs come from.
        cache_folder: the cache, made when missing; one file system.

    Returns:
        Folder with the files. They are read-only and shared: never write into it, and verify before reading.

    Raises:
        IntegrityError: the bytes of a file that came are not its own; the file is named. `StoredDamage` where what the
            registry has is damaged.
        OSError: the disk refuses.
        tuneforge.errors.TuneforgeError: a blob cannot be had.
    """
    folder = artifact_folder(cache_folder, manifest.digest)
    if folder.is_dir():
        return folder
    for file in manifest.files:
        check_path(file.path)
        blob = _blob_path(cache_folder, file.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        try:
            blobs.download(file.sha256, file.size_bytes, blob)
        except IntegrityError as error:  # say which file of the version it is, not where it would have been kept
            raise type(error)(file.path, error.expected, error.found) from None
        blob.chmod(0o444)  # a shared file that somebody edits in place would change in every version
    folder.parent.mkdir(parents=True, exist_ok=True)
    growing = Path(tempfile.mkdtemp(prefix=".growing-", dir=folder.parent))
    try:
        for file in manifest.files:
            target = growing / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(_blob_path(cache_folder, file.sha256), target)
        growing.chmod(0o755)
        try:
            growing.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another caller was faster; its files are the same
                raise
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return folder


def discard(manifest: Manifest, cache_folder: Path) -> None:
    """Takes an artifact and its blobs out of the cache, so that the next `fetch` brings them anew."""
    for file in manifest.files:
        with contextlib.suppress(FileNotFoundError):
            _blob_path(cache_folder, file.sha256).unlink()
    folder = artifact_folder(cache_folder, manifest.digest)
    if folder.is_dir():
        doomed = Path(tempfile.mkdtemp(prefix=".doomed-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(doomed / "files")
        shutil.rmtree(doomed, ignore_errors=True)


def artifact_folder(cache_folder: Path, digest: str) -> Path:
    """Returns where the files of a manifest with this digest lie when they are in the cache."""
    return cache_folder / "artifacts" / digest


def _blob_path(cache_folder: Path, sha256: str) -> Path:
    return cache_folder / "blobs" / sha256[:2] / sha256
