"""An S3 bucket as the deploy location: the manifest is put last and removed first, so it alone makes a copy visible."""

import io
import threading
from collections.abc import Iterable

import minio
import urllib3
from minio.deleteobjects import DeleteObject

from services.grpckit.errors import ServiceError
from services.registry.blobs.s3_client import client_of, pool_of
from services.registry.blobs.s3_faults import patient
from services.registry.blobs.settings import S3Settings
from services.registry.promotions.location import CopiedFile, LocationProblem, Stopped, chunks_of
from services.registry.promotions.resources import MANIFEST_NAME, is_same_copy

_PART_BYTES = 8 * 1024 * 1024
_CONNECTIONS = 4
_LARGEST_MANIFEST_BYTES = 8 * 1024 * 1024


class BucketLocation:
    """A bucket, or a part of one."""

    def __init__(self, settings: S3Settings) -> None:
        self._bucket = settings.bucket
        self._prefix = f"{settings.prefix}/" if settings.prefix else ""
        self._client = client_of(settings, pool_of(settings, connections=_CONNECTIONS))

    def copy(self, destination: str, files: Iterable[CopiedFile], manifest: bytes, stopping: threading.Event) -> None:
        """See `Location.copy`."""
        root = f"{self._prefix}{destination}/"
        try:
            if self._is_visible(root, manifest):
                return
            for file in files:
                self._put_file(root, file, stopping)
            patient(lambda: self._put(f"{root}{MANIFEST_NAME}", manifest))
        except (ServiceError, minio.error.MinioException, urllib3.exceptions.HTTPError) as error:
            raise LocationProblem(f"{destination} cannot be written: {error}") from error

    def withdraw(self, destination: str, manifest: bytes) -> str:
        """See `Location.withdraw`."""
        root = f"{self._prefix}{destination}/"
        try:
            if self._is_visible(root, manifest):
                patient(lambda: self._client.remove_object(self._bucket, f"{root}{MANIFEST_NAME}"))
        except (ServiceError, minio.error.MinioException, urllib3.exceptions.HTTPError) as error:
            raise LocationProblem(f"{destination} cannot be removed: {error}") from error
        try:
            left = patient(lambda: self._remove_all(root))
        except (ServiceError, minio.error.MinioException, urllib3.exceptions.HTTPError) as error:
            return f"objects below {destination} cannot be removed: {error}"
        return f"{left} objects below {destination} cannot be removed" if left else ""

    def _is_visible(self, root: str, manifest: bytes) -> bool:
        """Returns whether the copy is visible.

        Raises:
            LocationProblem: Something else is.
        """

        def read() -> bytes | None:
            try:
                response = self._client.get_object(self._bucket, f"{root}{MANIFEST_NAME}")
            except minio.S3Error as error:
                if error.code == "NoSuchKey":
                    return None
                raise
            try:
                return response.read(_LARGEST_MANIFEST_BYTES)
            finally:
                response.close()
                response.release_conn()

        found = patient(read)
        if found is not None and not is_same_copy(found, manifest):
            raise LocationProblem(f"{root} holds something else, which is left alone")
        return found is not None

    def _put_file(self, root: str, file: CopiedFile, stopping: threading.Event) -> None:
        for _ in chunks_of(file, stopping):  # verified before a byte of it leaves
            pass
        key = f"{root}{file.path}"
        part_bytes = max(_PART_BYTES, -(-file.size_bytes // 9000 // 2**20) * 2**20)
        patient(lambda: self._client.fput_object(self._bucket, key, str(file.source), part_size=part_bytes))
        if stopping.is_set():
            raise Stopped
        size = patient(lambda: self._client.stat_object(self._bucket, key)).size
        if size != file.size_bytes:
            raise LocationProblem(f"{file.path} was not kept as it was sent: {size} bytes instead of {file.size_bytes}")

    def _put(self, key: str, content: bytes) -> None:
        self._client.put_object(self._bucket, key, io.BytesIO(content), len(content))

    def _remove_all(self, root: str) -> int:
        """Removes every object below a key and returns how many could not be."""
        objects = self._client.list_objects(self._bucket, prefix=root, recursive=True)
        names = [DeleteObject(entry.object_name) for entry in objects if entry.object_name]
        return len(list(self._client.remove_objects(self._bucket, names)))
