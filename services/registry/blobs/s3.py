"""Blobs as objects of an S3 bucket.

    <prefix>/blobs/<first two digits>/<sha256>.<8 digits>     whole and verified, or an upload that is not complete yet
    <prefix>/owner                                            which registry all this belongs to
    <prefix>/probe/<8 digits>                                 written at a start, to learn what the store enforces

Every object has a key of its own that is written once: what a client sends lies where it stays, and counts from the
moment that a row names it. All functions block; `library.py` runs them in threads.
"""

import base64
import hashlib
import io
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import minio
import urllib3
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, LifecycleConfig, Rule

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.registry.blobs.home import CHUNK_BYTES, StoredObject
from services.registry.blobs.presigning import ObjectRequest
from services.registry.blobs.s3_client import client_of, pool_of
from services.registry.blobs.s3_faults import patient, told
from services.registry.blobs.s3_requests import PutPart, S3Requests, SignedUrl
from services.registry.blobs.settings import S3Settings

_log = get_logger(__name__)

_KEPT_PART_BYTES = 8 * 1024 * 1024
"""Parts in which the registry itself stores a file: a few of them are in memory at once."""
_MOST_PARTS = 9000
_ABORT_AFTER_DAYS = 14
"""For the bucket's own rule about unfinished multipart uploads: longer than ours, which knows the projects."""
_CONNECTIONS = 16
_READ_TRIES = 4


class S3Store:
    """A home of blobs in an S3 bucket."""

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = settings.bucket
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        pool = pool_of(settings, connections=_CONNECTIONS)
        self._client = client_of(settings, pool)
        self._requests = S3Requests(settings, pool)
        self.url_life_s = settings.url_life_s
        """Seconds that the URLs given to others last."""
        self._enforces_checksums: bool | None = None

    # --- what every home does -----------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Finds out whether the bucket can be written to, and asks it to drop unfinished uploads in the end.

        Raises:
            ServiceError: `STORAGE_MISCONFIGURED`, `STORAGE_UNAVAILABLE`.
        """
        key = f"{self._prefix}probe/{secrets.token_hex(4)}"
        patient(lambda: self._client.put_object(self._bucket, key, io.BytesIO(), 0), tries=2)
        patient(lambda: self._client.remove_object(self._bucket, key), tries=2)
        if not self.enforces_checksums():
            _log.warning("the object store does not check SHA-256: each upload is read once to verify it")
        rule = Rule(
            ENABLED,
            rule_filter=Filter(prefix=self._key("")),
            rule_id="tuneforge-unfinished",
            abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(days_after_initiation=_ABORT_AFTER_DAYS),
        )
        # A bucket's owner may forbid it, or have rules of their own, which are left as they are.
        with suppress(minio.error.MinioException, urllib3.exceptions.HTTPError):
            if self._client.get_bucket_lifecycle(self._bucket) is None:
                self._client.set_bucket_lifecycle(self._bucket, LifecycleConfig([rule]))

    def claim(self, owner: str) -> None:
        """Writes the owner beside the blobs, once, and refuses a bucket in which another name stands.

        Raises:
            ServiceError: `STORAGE_MISCONFIGURED`: it belongs to another registry.
        """
        path = f"/{self._bucket}/{self._prefix}owner"
        request = ObjectRequest(method="PUT", path=path, headers={"if-none-match": "*"})
        try:
            patient(lambda: self._requests.send(ObjectRequest(method="HEAD", path=path)))
        except minio.S3Error:  # nothing there: whoever is first writes it
            with suppress(minio.S3Error):
                self._requests.send(request, owner.encode())
        found = patient(lambda: self._requests.send(ObjectRequest(method="GET", path=path))).data.decode()
        if found != owner:
            raise ServiceError(
                Reason.STORAGE_MISCONFIGURED,
                f"bucket {self._bucket!r} with the prefix {self._prefix!r} belongs to another registry; use another "
                "prefix, or remove the object 'owner' below it if that registry is gone",
                metadata={"bucket": self._bucket, "prefix": self._prefix},
            )

    def keep(self, file: Path, place: str, sha256: str) -> None:
        """Copies a file to its key."""
        size = file.stat().st_size
        part_bytes = max(_KEPT_PART_BYTES, -(-size // _MOST_PARTS // 2**20) * 2**20)
        patient(lambda: self._client.fput_object(self._bucket, self._key(place), str(file), part_size=part_bytes))
        if not self.holds(place, size):
            raise ServiceError(Reason.STORAGE_UNAVAILABLE, f"the object store did not keep blob {sha256}")

    def open(self, place: str, offset: int, size_bytes: int) -> "S3Source":
        """Opens an object for reading from an offset; a connection that breaks is opened again where it was.

        Raises:
            ServiceError: `BLOB_DAMAGED`: it is gone; `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
        """
        source = S3Source(self, place, offset, size_bytes)
        source.begin()
        return source

    def holds(self, place: str, size_bytes: int) -> bool:
        """Returns whether an object of this size is there."""
        return self.size(place) == size_bytes

    def delete(self, place: str) -> None:
        """Removes an object."""
        patient(lambda: self._client.remove_object(self._bucket, self._key(place)))

    def listing(self) -> Iterator[StoredObject]:
        """Yields every object below our prefix.

        Raises:
            ServiceError: `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`; what was yielded before is true.
        """
        root = self._key("")
        try:
            for entry in self._client.list_objects(self._bucket, prefix=root, recursive=True):
                if entry.object_name and entry.last_modified:
                    place = entry.object_name.removeprefix(root)
                    yield StoredObject(place, entry.size or 0, entry.last_modified.timestamp())
        except (minio.error.MinioException, urllib3.exceptions.HTTPError) as error:
            raise told(error) or error from None

    def local_path(self, place: str) -> None:
        """Returns None: objects have to be fetched."""

    # --- uploads by URL -----------------------------------------------------------------------------------------------
    def size(self, place: str) -> int | None:
        """Returns the size of an object in bytes; None when there is none."""
        try:
            return patient(lambda: self._client.stat_object(self._bucket, self._key(place))).size
        except minio.S3Error:
            return None

    def enforces_checksums(self) -> bool:
        """Returns whether the store refuses content that has another SHA-256 than its header says; asks it once."""
        if self._enforces_checksums is None:
            path = f"/{self._bucket}/{self._prefix}probe/{secrets.token_hex(4)}"
            headers = {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"other").digest()).decode()}
            try:
                self._requests.send(ObjectRequest(method="PUT", path=path, headers=headers), b"content")
            except minio.S3Error as error:
                self._enforces_checksums = error.response.status == 400
            except urllib3.exceptions.HTTPError as error:
                raise told(error) or error from None
            else:
                self._enforces_checksums = False
                patient(lambda: self._requests.send(ObjectRequest(method="DELETE", path=path)))
        return self._enforces_checksums

    def checksum(self, place: str) -> str:
        """Returns the SHA-256 that the store computed of an object; empty when it has none, or does not check them."""
        return self._requests.checksum(self._path(place)) if self.enforces_checksums() else ""

    def begin_parts(self, place: str) -> str:
        """Begins an upload in parts and returns its id."""
        return self._requests.begin_parts(self._path(place))

    def parts(self, place: str, upload_id: str) -> list[PutPart] | None:
        """Returns the parts that are there, by number; None when the store knows no such upload (any more)."""
        return self._requests.parts(self._path(place), upload_id)

    def complete_parts(self, place: str, upload_id: str, parts: list[PutPart]) -> None:
        """Puts the parts together; does nothing when they were before."""
        with suppress(minio.S3Error):  # NoSuchUpload: whether the object is there is asked next anyway
            self._requests.complete_parts(self._path(place), upload_id, parts)

    def abort_parts(self, place: str, upload_id: str) -> None:
        """Gives an upload in parts up."""
        self._requests.abort_parts(self._path(place), upload_id)

    def read_url(self, place: str) -> SignedUrl:
        """Returns a URL that gives an object, whole or by `Range`."""
        return self._requests.url("GET", self._path(place), query={}, headers={})

    def write_url(self, place: str, sha256: str) -> SignedUrl:
        """Returns a URL that takes an object once: nothing is overwritten, and the store checks the content."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"if-none-match": "*", "x-amz-checksum-sha256": checksum}
        return self._requests.url("PUT", self._path(place), query={}, headers=headers)

    def part_url(self, place: str, upload_id: str, number: int) -> SignedUrl:
        """Returns a URL that takes one part of an upload."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._requests.url("PUT", self._path(place), query=query, headers={})

    # --- keys ---------------------------------------------------------------------------------------------------------
    def body(self, place: str, offset: int) -> urllib3.BaseHTTPResponse:
        """Opens the body of an object from an offset, one try; what goes wrong is the caller's to judge."""
        return self._client.get_object(self._bucket, self._key(place), offset=offset)

    def _key(self, place: str) -> str:
        return f"{self._prefix}blobs/{place}"

    def _path(self, place: str) -> str:
        return f"/{self._bucket}/{self._key(place)}"


class S3Source:
    """A stored object, open for reading in pieces."""

    def __init__(self, store: S3Store, place: str, offset: int, size_bytes: int) -> None:
        self._store = store
        self._place = place
        self._offset = offset
        self._size_bytes = size_bytes
        self._body: urllib3.BaseHTTPResponse | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Connects, so that a fault is told before the first piece."""
        if self._offset < self._size_bytes:
            self._connect()

    def read(self) -> bytes:
        """Returns the next piece, at most `CHUNK_BYTES`; empty at the end and after `close`.

        Raises:
            ServiceError: `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`, `BLOB_DAMAGED`.
        """
        with self._lock:
            if self._is_closed or self._offset >= self._size_bytes:
                return b""
            piece = patient(self._piece, tries=_READ_TRIES)
            self._offset += len(piece)
            return piece

    def close(self) -> None:
        """Gives the connection back; waits for a read that runs."""
        with self._lock:
            self._is_closed = True
            self._hang_up()

    def _piece(self) -> bytes:
        if self._body is None:
            self._connect()
        assert self._body is not None
        try:
            piece = self._body.read(min(CHUNK_BYTES, self._size_bytes - self._offset))
        except BaseException:
            self._hang_up()
            raise
        if not piece:  # shorter than the size that was verified
            self._hang_up()
            raise urllib3.exceptions.ProtocolError("the body ended early")
        return piece

    def _connect(self) -> None:
        try:
            self._body = patient(lambda: self._store.body(self._place, self._offset))
        except minio.S3Error:
            raise self._damaged("is gone") from None
        found = self._offset + int(self._body.headers.get("content-length", "-1"))
        if found != self._size_bytes:
            self._hang_up()
            raise self._damaged(f"has {found} bytes in place of {self._size_bytes}")

    def _damaged(self, problem: str) -> ServiceError:
        digest = self._place.partition("/")[2][:64]
        return ServiceError(Reason.BLOB_DAMAGED, f"the stored object of blob {digest} {problem}")

    def _hang_up(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body.release_conn()
            self._body = None
