"""URLs that carry their own permission: AWS signature version 4 in the query, as every S3 takes it.

The minio client signs the host only. Here headers are signed too, because what a URL allows must be narrow: the
checksum that the content must have, and that nothing is overwritten (`x-amz-checksum-sha256`, `if-none-match`).
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

LONGEST_LIFE_S = 7 * 86400
"""What S3 allows."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the store knows us as."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRequest:
    """What a URL is to allow."""

    method: str
    """`GET`, `PUT`, `POST` or `DELETE`."""
    path: str
    """`/bucket/key`, not quoted."""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Signed: whoever uses the URL has to send exactly these."""


def presign(
    endpoint: str, region: str, credentials: Credentials, request: ObjectRequest, *, life_s: int, now: datetime
) -> str:
    """Returns the URL for one request.

    Args:
        endpoint: `https://host:port`, without a path.
        region: Of the bucket.
        credentials: In whose name.
        request: What it allows.
        life_s: Seconds until it ends, 1 to `LONGEST_LIFE_S`.
        now: The time in UTC.
    """
    stamp, day = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"), now.astimezone(UTC).strftime("%Y%m%d")
    scope = f"{day}/{region}/s3/aws4_request"
    host = urlsplit(endpoint).netloc
    headers = {"host": host} | {name.lower(): value.strip() for name, value in request.headers.items()}
    names = ";".join(sorted(headers))
    query = dict(request.query) | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{credentials.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(life_s),
        "X-Amz-SignedHeaders": names,
    }
    if credentials.session_token:
        query["X-Amz-Security-Token"] = credentials.session_token
    path = quote(request.path, safe="/-_.~")
    canonical_query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted(query.items()))
    canonical_headers = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([request.method, path, canonical_query, canonical_headers, names, "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{credentials.secret_key}".encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"{endpoint}{path}?{canonical_query}&X-Amz-Signature={signature}"


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
