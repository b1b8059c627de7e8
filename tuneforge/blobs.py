"""Bytes by digest: upload and download, resumable, retried and verified.

They travel through the registry, or straight to and from the object store behind it: the registry says which, and a
client that cannot reach the store goes through the registry.

A transfer that breaks off goes on where it stopped, also after a restart of the registry or of this process. Nothing
that does not have the announced digest is ever kept under its final name. Which files make a data set or a model is
not known here; `tuneforge.manifest` names them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256 as new_sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import grpc

from tuneforge._blob_calls import CHUNK_BYTES, PEER, TRY_DEADLINE_S, BlobCalls, resumable
from tuneforge._hashing_writer import HashingWriter
from tuneforge._object_urls import StoreBrokeOff, StoreRefused, StoreUnreachable, get
from tuneforge._part_uploads import parts_to_send
from tuneforge._transport import Backoff, RetryPolicy, TransportSettings, call, open_channel
from tuneforge._uploads import upload, upload_known
from tuneforge.errors import Reason, TuneforgeError, Unavailable
from tuneforge.manifest import (
    IntegrityError,
    Manifest,
    ManifestFile,
    StoredDamage,
    check_path,
    files_below,
    sha256_file,
)
from tuneforge.v1.blobs_pb2 import BLOB_DIRECTION_READ, CheckBlobRequest, DownloadBlobRequest
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

Progress = Callable[[int], None]
"""Called with the number of bytes that were moved since the last call; bytes that need no moving count too."""

_READ_BYTES = 4 * 1024 * 1024


class BlobClient:
    """Moves blobs of one project.

    Safe to use from several threads and processes at once: two downloads of the same file wait for each other.
    """

    def __init__(self, channel: grpc.Channel, project: str, *, retry: RetryPolicy | None = None) -> None:
        """Uses a channel to the registry, which stays the caller's to close.

        Args:
            channel: From `tuneforge._transport.open_channel`.
            project: Id of the project, e.g. `default`.
            retry: How long to go on without progress; None gives up after 60 seconds.
        """
        retry = retry or RetryPolicy(budget_s=60.0, max_s=5.0)
        self._calls = BlobCalls(RegistryServiceStub(channel), f"projects/{project}", retry)
        self._owned: grpc.Channel | None = None

    @classmethod
    def connect(
        cls,
        address: str,
        project: str,
        *,
        settings: TransportSettings | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Opens a channel of its own to the registry at `host:port`; close it, or use `with`."""
        channel = open_channel(address, settings)
        client = cls(channel, project, retry=retry)
        client._owned = channel
        return client

    def close(self) -> None:
        """Closes the channel if `connect` opened it."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def upload_file(self, path: Path, *, progress: Progress | None = None) -> ManifestFile:
        """Stores the bytes of a file and returns its entry for a manifest, under the file's own name.

        A large file is read once: its digest is found while it is sent. It is hashed first only where the project has a
        blob of its size, so that what is stored already is not sent. What broke off is gone on with, also by another
        process on the same machine, as long as the file stays as it is.

        Raises:
            OSError: The file cannot be read.
            IntegrityError, InvalidArgument: It changes during the upload; nothing of it is kept.
            TuneforgeError: The registry refused the bytes or stayed away.
        """
        return upload(self._calls, path, progress or _nobody)

    def upload_files(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Manifest:
        """Stores files and returns their manifest; errors as for `upload_file`.

        Args:
            files: Path in the manifest -> file.
            progress: Told about each piece.

        Raises:
            InvalidManifest: A path breaks a rule of `tuneforge.manifest`; nothing was sent.
        """
        for path in files:
            check_path(path)
        return Manifest.of(
            replace(self.upload_file(file, progress=progress), path=path) for path, file in files.items()
        )

    def upload_folder(self, folder: Path, *, progress: Progress | None = None) -> Manifest:
        """Stores every file below a folder and returns the manifest of the folder.

        Raises:
            InvalidManifest: There is a symbolic link or something that is no regular file; nothing was sent.
            OSError: A file cannot be read.
            IntegrityError, InvalidArgument: A file changes during the upload.
            TuneforgeError: The registry refused the bytes or stayed away.
        """
        return self.upload_files({path: folder / path for path in files_below(folder)}, progress=progress)

    def upload_manifest(self, folder: Path, manifest: Manifest, *, progress: Progress | None = None) -> None:
        """Stores the files of a manifest that was built from a folder before; errors as for `upload_folder`.

        Nothing is sent of a file that is stored.
        """
        for entry in manifest.files:
            upload_known(self._calls, folder / entry.path, entry, progress or _nobody)

    def download(self, sha256: str, size_bytes: int, dest: Path, *, progress: Progress | None = None) -> None:
        """Brings a blob to `dest`, verified; a file with the right content that lies there already is kept.

        The bytes arrive in `.{name}.{digest}.part` beside `dest`, which is renamed when it is whole. A part left by a
        broken download is gone on with.

        Args:
            sha256: Digest of the content, 64 lower-case hexadecimal digits.
            size_bytes: Size of the content, >= 0.
            dest: The file to make; its folder is made when missing.
            progress: Told about each piece.

        Raises:
            OSError: The disk refused.
            IntegrityError: The bytes that arrived, twice, are not those of the digest. It is a `StoredDamage` where the
                registry, asked to look, found its own copy damaged: the next upload takes its place.
            TuneforgeError: The project has no such blob, or the registry stayed away.
        """
        dest.parent.mkdir(parents=True, exist_ok=True)
        if _has_content(dest, sha256, size_bytes):
            _tell(progress, size_bytes)
            return
        part = dest.with_name(f".{dest.name}.{sha256[:16]}.part")
        with _locked(part) as file:
            if _has_content(dest, sha256, size_bytes):
                part.unlink(missing_ok=True)
                _tell(progress, size_bytes)
                return
            try:
                found = self._fill(file, sha256, size_bytes, progress)
            except TuneforgeError:
                if not file.tell():
                    part.unlink(missing_ok=True)
                raise
            if found != sha256:
                file.truncate(0)
                found = self._fill(file, sha256, size_bytes, None)
            if found != sha256:
                part.unlink(missing_ok=True)
                raise self._damage(str(dest), sha256, found)
            file.flush()
            os.fsync(file.fileno())
            part.replace(dest)

    def download_folder(self, manifest: Manifest, folder: Path, *, progress: Progress | None = None) -> None:
        """Brings every file of a manifest below a folder; errors as for `download`."""
        for entry in manifest.files:
            check_path(entry.path)
            self.download(entry.sha256, entry.size_bytes, folder / entry.path, progress=progress)

    def _damage(self, path: str, sha256: str, found: str) -> IntegrityError:
        """Returns the error for bytes that came wrong twice, once the registry has looked at what it has."""
        request = CheckBlobRequest(name=f"{self._calls.parent}/blobs/{sha256}")
        try:
            method, retry = self._calls.stub.CheckBlob, self._calls.retry
            check = call(method, request, timeout_s=TRY_DEADLINE_S, retry=retry, peer=PEER)
        except TuneforgeError:  # away, or of an earlier release: what came is wrong all the same
            return IntegrityError(path, sha256, found)
        return (IntegrityError if check.is_whole else StoredDamage)(path, sha256, found)

    def _fill(self, file: BinaryIO, sha256: str, size_bytes: int, progress: Progress | None) -> str:
        """Appends what is missing of a blob to a part of it and returns the digest of the whole."""
        hasher = new_sha256()
        file.seek(0)
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
        offset = file.tell()
        if offset > size_bytes:  # left by a blob of another size: not ours
            file.truncate(0)
            file.seek(0)
            offset, hasher = 0, new_sha256()
        _tell(progress, offset)
        backoff = Backoff(self._calls.retry)
        with HashingWriter(file, hasher) as writer:
            while offset < size_bytes:
                try:
                    for piece in self._pieces(sha256, size_bytes, offset):
                        writer.write(piece)
                        offset += len(piece)
                        _tell(progress, len(piece))
                        backoff.progress()
                    if offset < size_bytes:
                        raise IntegrityError(f"blob {sha256}", f"{size_bytes} bytes", f"{offset} bytes")
                except grpc.RpcError as rpc_error:
                    backoff.wait_or_raise(resumable(rpc_error))
                except StoreUnreachable:
                    self._calls.may_use_urls = False
                except (StoreBrokeOff, StoreRefused) as error:  # also URLs that have ended: there are others to be had
                    backoff.wait_or_raise(Unavailable(Reason.STORAGE_UNAVAILABLE, str(error)))
        return hasher.hexdigest()

    def _pieces(self, sha256: str, size_bytes: int, offset: int) -> Iterator[bytes]:
        """Yields the bytes of a blob from an offset, straight from the store where that is possible."""
        if self._calls.may_use_urls and size_bytes > CHUNK_BYTES:
            access = self._calls.access(f"blobs/{sha256}", BLOB_DIRECTION_READ, size_bytes)
            if access.WhichOneof("way") == "presigned":
                yield from get(parts_to_send(access.presigned)[0], offset)
                return
            self._calls.may_use_urls = False  # the registry has a folder
        request = DownloadBlobRequest(name=f"{self._calls.parent}/blobs/{sha256}", offset=offset)
        for message in self._calls.stub.DownloadBlob(request, timeout=TRY_DEADLINE_S):
            yield message.data


def _has_content(path: Path, sha256: str, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes and sha256_file(path) == sha256


def _nobody(_moved: int) -> None:
    """Hears of progress where nobody asked."""


def _tell(progress: Progress | None, moved: int) -> None:
    if progress is not None and moved:
        progress(moved)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Opens a part for reading and appending, for one process and thread at a time."""
    while True:
        with part.open("a+b") as file:
            _lock(file)
            # Whoever held the lock before may have renamed the part away; then this handle is of the finished file.
            try:
                is_same = part.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                is_same = False
            if is_same:
                yield file
                return


def _lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two downloads of one file at once are refused by its rename instead
        return
    fcntl.flock(file, fcntl.LOCK_EX)
