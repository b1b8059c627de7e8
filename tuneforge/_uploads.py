"""The upload of one file, through the registry or by the URLs that it gives, gone on with when it breaks off.

A small file is hashed first: one that is stored already is then not sent. A large one is sent under a name that follows
from the file, while its digest is found beside (`_file_digest.py`) and told last; unless the registry has a blob of its
size, which may be this one.
"""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc

from tuneforge._blob_calls import CHUNK_BYTES, PEER, TRY_DEADLINE_S, BlobCalls, resumable
from tuneforge._file_digest import FileDigest
from tuneforge._object_urls import StoreUnreachable
from tuneforge._part_uploads import Told, parts_to_send, send_parts
from tuneforge._transport import Backoff, call
from tuneforge.errors import DeadlineExceeded, InvalidArgument, NotFound, Reason, TuneforgeError
from tuneforge.manifest import IntegrityError, ManifestFile, sha256_file
from tuneforge.v1.blobs_pb2 import (
    BLOB_DIRECTION_WRITE,
    BlobAccess,
    BlobPresigned,
    BlobStream,
    CompleteUploadRequest,
    UploadBlobRequest,
)

HASH_FIRST_BYTES = 16 * 1024 * 1024
"""Files below are hashed before they are sent: that takes no longer than a few calls."""


def upload(calls: BlobCalls, path: Path, told: Callable[[int], None]) -> ManifestFile:
    """Stores the bytes of a file and returns its entry for a manifest, under the file's own name.

    Raises:
        OSError: The file cannot be read.
        IntegrityError, InvalidArgument: It changes while it is sent.
        TuneforgeError: The registry refused the bytes or stayed away.
    """
    status = path.stat()
    if status.st_size < HASH_FIRST_BYTES:
        entry = ManifestFile(path=path.name, sha256=sha256_file(path), size_bytes=status.st_size)
        upload_known(calls, path, entry, told)
        return entry
    with FileDigest(path) as digest:
        name = f"uploads/{_upload_id(path, status)}"
        _Upload(calls, path, status.st_size, digest.result, Told(told), name).run()
        return ManifestFile(path=path.name, sha256=digest.result(), size_bytes=status.st_size)


def upload_known(calls: BlobCalls, path: Path, entry: ManifestFile, told: Callable[[int], None]) -> None:
    """Stores the bytes of a file whose digest is known; errors as for `upload`."""
    _Upload(calls, path, entry.size_bytes, lambda: entry.sha256, Told(told)).run()


def _upload_id(path: Path, status: os.stat_result) -> str:
    """Returns the id of an upload: the same for the same file in its present state, so that any process goes on."""
    file = [platform.node(), str(path.resolve()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
    return f"file-{sha256(repr(file).encode()).hexdigest()[:40]}"


@dataclass
class _Upload:
    """An upload that goes on."""

    calls: BlobCalls
    path: Path
    size_bytes: int
    digest: Callable[[], str]
    """Returns the SHA-256 of the content; may wait for it."""
    told: Told
    unnamed: str = ""
    """`uploads/{upload}` while it goes without its digest; empty when it goes by it."""

    def run(self) -> None:
        """Returns when the blob is stored."""
        backoff, most = Backoff(self.calls.retry), -1
        while not (access := self._access()).is_stored:
            error: TuneforgeError | None = self._stalled()
            if access.WhichOneof("way") == "presigned":
                if self._send_by_urls(access.presigned):
                    break
            else:
                held = access.stream.committed_bytes
                if held > most:
                    most = held
                    backoff.progress()
                    self.told.whole(held)
                if held:
                    self.digest()  # begun earlier: there is more to read than to send, and a silent stream is ended
                error = self._send(access.stream)
            if error is None:
                break
            backoff.wait_or_raise(error)
        self.told.whole(self.size_bytes)

    def _access(self) -> BlobAccess:
        if self.unnamed:
            try:
                access = self.calls.access(self.unnamed, BLOB_DIRECTION_WRITE, self.size_bytes)
            except InvalidArgument as error:
                if error.reason != Reason.INVALID_NAME:  # which is what a registry of an earlier release says
                    raise
            else:
                if not access.needs_digest:
                    return access
            self.unnamed = ""
        return self.calls.access(f"blobs/{self.digest()}", BLOB_DIRECTION_WRITE, self.size_bytes)

    def _send(self, stream: BlobStream) -> TuneforgeError | None:
        """Sends what is missing; returns None when the blob is stored, else the error after which to go on."""
        source = _Chunks(self, stream)
        try:
            if self.calls.stub.UploadBlob(iter(source), timeout=TRY_DEADLINE_S).is_stored:
                return None
            error = self._stalled()
        except grpc.RpcError as rpc_error:
            try:
                error = resumable(rpc_error)
            except InvalidArgument as refused:
                if not self.unnamed or refused.reason != Reason.DIGEST_MISMATCH:
                    raise
                # Begun by another process and damaged since, or a file that changes: once more, by the digest.
                self.unnamed, error = "", refused
        if source.error is not None:
            raise source.error
        return error

    def _send_by_urls(self, presigned: BlobPresigned) -> bool:
        """Sends what is missing straight to the store; returns whether the blob is stored."""
        try:
            if not send_parts(self.path, parts_to_send(presigned), self.told, self.calls.retry):
                return False
        except StoreUnreachable:
            self.calls.may_use_urls = False  # from here the registry can be reached, its store cannot
            return False
        request = CompleteUploadRequest(name=presigned.upload)
        while True:  # the registry goes on reading when our deadline has passed
            try:
                method, retry = self.calls.stub.CompleteUpload, self.calls.retry
                return call(method, request, timeout_s=TRY_DEADLINE_S, retry=retry, peer=PEER).is_stored
            except DeadlineExceeded:
                continue
            except NotFound:  # given up meanwhile
                return False

    def _stalled(self) -> TuneforgeError:
        return TuneforgeError(Reason.INTERNAL, f"the upload of {self.path} does not move forward")


@dataclass
class _Chunks:
    """The messages of one try; keeps an error of its own, which gRPC would swallow."""

    upload: _Upload
    stream: BlobStream
    error: BaseException | None = None

    def __iter__(self) -> Iterator[UploadBlobRequest]:
        try:
            yield from self._messages()
        except (OSError, IntegrityError) as error:
            self.error = error

    def _messages(self) -> Iterator[UploadBlobRequest]:
        upload, offset = self.upload, self.stream.committed_bytes
        is_unnamed, most = bool(upload.unnamed), min(self.stream.chunk_bytes, CHUNK_BYTES) or CHUNK_BYTES
        left = upload.size_bytes - offset
        with upload.path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(min(most, left))
            yield UploadBlobRequest(upload=self.stream.upload, size_bytes=upload.size_bytes, offset=offset, data=data)
            while left := left - len(data):
                if not data:
                    raise IntegrityError(str(upload.path), f"{upload.size_bytes} bytes", "a file that became shorter")
                data = file.read(min(most, left))
                yield UploadBlobRequest(data=data)
        if is_unnamed:
            yield UploadBlobRequest(sha256=upload.digest())
