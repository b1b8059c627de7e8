"""Requests to an object store that are signed by ourselves: uploads in parts, checksums, and URLs for others.

The minio client has no public way to these. A request is a presigned URL that we use at once.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import minio
import urllib3

from services.registry.blobs.presigning import ObjectRequest, presign
from services.registry.blobs.s3_faults import patient
from services.registry.blobs.settings import S3Settings

_LIFE_S = 300
"""Seconds for which the URL of a request of our own lasts."""


@dataclass(frozen=True, slots=True)
class PutPart:
    """One part that the store has of an unfinished upload."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL and the headers that have to be sent with it."""

    url: str
    headers: Mapping[str, str]


class S3Requests:
    """Signed requests to one bucket. All functions block; `path` is `/bucket/key`."""

    def __init__(self, settings: S3Settings, pool: urllib3.PoolManager) -> None:
        self._settings = settings
        self._pool = pool

    def url(self, method: str, path: str, *, query: Mapping[str, str], headers: Mapping[str, str]) -> SignedUrl:
        """Returns a URL for somebody else."""
        settings = self._settings
        request = ObjectRequest(method=method, path=path, query=query, headers=headers)
        endpoint = settings.public_endpoint or settings.endpoint
        life_s, now = int(settings.url_life_s), datetime.now(UTC)
        return SignedUrl(
            presign(endpoint, settings.region, settings.credentials, request, life_s=life_s, now=now), headers
        )

    def send(self, request: ObjectRequest, body: bytes = b"") -> urllib3.BaseHTTPResponse:
        """Makes one try of a request and returns the whole answer.

        Raises:
            minio.S3Error: The store refused; its code says why.
            urllib3.exceptions.HTTPError: The store was not reached, or broke off.
        """
        settings = self._settings
        url = presign(
            settings.endpoint, settings.region, settings.credentials, request, life_s=_LIFE_S, now=datetime.now(UTC)
        )
        answer = self._pool.request(request.method, url, body=body or None, headers=dict(request.headers))
        if answer.status >= 300:
            code = next(iter(_texts(answer.data, "Code")), "")
            raise minio.S3Error(answer, code or _code_of_status(answer.status), "", "", "", "")
        return answer

    def checksum(self, path: str) -> str:
        """Returns the SHA-256 that the store itself computed of an object, in hexadecimal; empty when it has none."""
        request = ObjectRequest(method="HEAD", path=path, headers={"x-amz-checksum-mode": "ENABLED"})
        answer = patient(lambda: self.send(request))
        try:
            return base64.b64decode(answer.headers.get("x-amz-checksum-sha256", ""), validate=True).hex()
        except ValueError:
            return ""

    def begin_parts(self, path: str) -> str:
        """Begins an upload in parts and returns its id."""
        request = ObjectRequest(method="POST", path=path, query={"uploads": ""})
        return _texts(patient(lambda: self.send(request)).data, "UploadId")[0]

    def parts(self, path: str, upload_id: str) -> list[PutPart] | None:
        """Returns the parts that are there, by number; None when the store knows no such upload (any more)."""
        found: list[PutPart] = []
        marker = "0"
        while True:
            query = {"uploadId": upload_id, "max-parts": "1000", "part-number-marker": marker}
            request = ObjectRequest(method="GET", path=path, query=query)
            try:
                data = patient(lambda request=request: self.send(request)).data  # type: ignore[misc]
            except minio.S3Error:
                return None
            columns = [_texts(data, f"Part/{tag}") for tag in ("PartNumber", "Size", "ETag")]
            found += [PutPart(int(number), int(size), etag) for number, size, etag in zip(*columns, strict=True)]
            if _texts(data, "IsTruncated") != ["true"]:
                return found
            marker = _texts(data, "NextPartNumberMarker")[0]

    def complete_parts(self, path: str, upload_id: str, parts: Sequence[PutPart]) -> None:
        """Puts the parts together; from here on none can be changed.

        Raises:
            minio.S3Error: `NoSuchUpload`: it was completed or given up before.
        """
        rows = "".join(f"<Part><PartNumber>{p.number}</PartNumber><ETag>{p.etag}</ETag></Part>" for p in parts)
        request = ObjectRequest(method="POST", path=path, query={"uploadId": upload_id})
        body = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()

        def complete() -> None:
            answer = self.send(request, body)
            if code := next(iter(_texts(answer.data, "Code")), ""):  # S3 may say 200 first and find a fault then
                raise minio.S3Error(answer, code, "", "", "", "")

        patient(complete)

    def abort_parts(self, path: str, upload_id: str) -> None:
        """Gives an upload in parts up; one that is gone is as good."""
        request = ObjectRequest(method="DELETE", path=path, query={"uploadId": upload_id})
        try:
            patient(lambda: self.send(request))
        except minio.S3Error:
            return


def _texts(document: bytes, path: str) -> list[str]:
    """Returns the texts of all elements at a path below the root of an answer, whatever their name space."""
    try:
        root = ET.fromstring(document)  # noqa: S314 - from the operator's own store, never from a caller
    except ET.ParseError:
        return []
    steps = "/".join("{*}" + step for step in path.split("/"))
    return [element.text or "" for element in root.findall(steps)]


def _code_of_status(status: int) -> str:
    """Returns the code for an answer without a body, as those to HEAD are."""
    return {403: "AccessDenied", 404: "NoSuchKey"}.get(status, "")
