"""Objects of an S3 store, through an endpoint and credentials of the operator's."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import minio
import urllib3
from minio.error import MinioException

from services.registry.sources.addresses import S3Address
from services.registry.sources.faults import Code, SourceFault, for_status
from services.registry.sources.parts import CHUNK_BYTES, Arrived, Part
from services.registry.sources.places import Listing
from services.registry.sources.wanted import Entry

_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
_MOST_LISTED = 100_000
"""Objects looked at below a prefix; who has more gives a longer prefix."""
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject"})
_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})


class S3Place:
    """An object, or all objects below a prefix.

    Args:
        address: Where.
        endpoint: `https://host[:port]`.
        context: Whom the store is believed to be.
        region: Empty: asked of the store.
        credentials: (access key, secret key); None: anonymous.
    """

    def __init__(
        self,
        address: S3Address,
        *,
        endpoint: str,
        context: ssl.SSLContext,
        region: str = "",
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self._address = address
        scheme, _, host = endpoint.partition("://")
        access_key, secret_key = credentials or (None, None)
        # No redirects: the credentials are for this host. Faults that pass are tried again by the caller's next call.
        pool = urllib3.PoolManager(
            timeout=_TIMEOUT,
            retries=urllib3.Retry(2, redirect=0, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
            ssl_context=context,
        )
        self._client = minio.Minio(
            host,
            access_key=access_key,
            secret_key=secret_key,
            secure=scheme == "https",
            region=region or None,
            http_client=pool,
        )

    def look(self) -> Listing:
        """Returns the object of that name, else the objects below it."""
        prefix = self._address.prefix
        with self._told():
            entries = self._one(prefix) if prefix and not prefix.endswith("/") else []
            if not entries:
                below = prefix if not prefix or prefix.endswith("/") else prefix + "/"
                entries = list(self._below(below))
        if not entries:
            raise SourceFault(Code.NOT_FOUND, f"{self._address.shown} has no objects")
        return Listing("", entries)

    def fetch(self, part: Part, tell: Callable[[int], None]) -> Arrived:
        """Brings one object, from where an earlier try stopped while it is the same still."""
        entry, held = part.entry, part.held_bytes
        if held and held == entry.size_bytes:
            return part.fill((), held, tell)
        with self._told():
            headers: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{entry.tag}"'} if entry.tag else {}
            response = self._client.get_object(self._address.bucket, entry.key, offset=held, request_headers=headers)
            try:
                return part.fill(response.stream(CHUNK_BYTES), held, tell)
            finally:
                response.close()
                response.release_conn()

    def _one(self, key: str) -> list[Entry]:
        try:
            found = self._client.stat_object(self._address.bucket, key)
        except minio.S3Error as error:
            if error.code in _MISSING - {"NoSuchBucket"}:
                return []
            raise
        name = PurePosixPath(key).name
        return [Entry(path=name, key=key, size_bytes=found.size or 0, tag=found.etag or "")]

    def _below(self, prefix: str) -> Iterator[Entry]:
        for number, found in enumerate(self._client.list_objects(self._address.bucket, prefix=prefix, recursive=True)):
            if number >= _MOST_LISTED:
                raise SourceFault(Code.TOO_LARGE, f"{self._address.shown} has more than {_MOST_LISTED} objects")
            key = found.object_name or ""
            path = key.removeprefix(prefix)
            if path and not key.endswith("/"):
                yield Entry(path=path, key=key, size_bytes=found.size or 0, tag=found.etag or "")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the client raises into a fault, in our own words: its texts hold hosts and keys."""
        try:
            yield
        except minio.S3Error as error:
            if error.code in _DENIED:
                raise SourceFault(Code.DENIED, f"{self._address.shown} is refused: {error.code}") from None
            if error.code in _MISSING:
                raise SourceFault(Code.NOT_FOUND, f"{self._address.shown} is not there: {error.code}") from None
            if error.code == "PreconditionFailed":
                raise SourceFault(Code.UNAVAILABLE, f"{self._address.shown} changed meanwhile") from None
            status = getattr(error.response, "status", 500)
            raise for_status(int(status), f"{self._address.shown} ({error.code})") from None
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise SourceFault(Code.UNAVAILABLE, f"the object store broke off: {type(error).__name__}") from None
