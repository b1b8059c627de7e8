"""Where blobs live and how long what nobody needs is kept: settings from the environment."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from services.grpckit.settings import Environment
from services.registry.blobs.presigning import LONGEST_LIFE_S, Credentials

CACHE_BYTES = 10 * 1024**3
URL_LIFE_S = 3600.0
S3_TIMEOUT_S = 20.0
COLLECT_EVERY_S = 3600.0
UPLOAD_SILENCE_S = 300.0
GRACE_S = 7 * 86400.0
_AWS = "https://s3.amazonaws.com"
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61}[a-z0-9])")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")
_LONGEST_PREFIX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """An S3 bucket as the home of blobs."""

    bucket: str
    """TUNEFORGE_REGISTRY_BLOBS=s3://bucket/prefix."""
    credentials: Credentials
    """A JSON file with `access_key`, `secret_key` and perhaps `session_token`: TUNEFORGE_REGISTRY_S3_CREDENTIALS; else
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."""
    prefix: str = ""
    """Begins every key; empty or without `/` at its ends."""
    endpoint: str = _AWS
    """`https://host:port` of the store. TUNEFORGE_REGISTRY_S3_ENDPOINT."""
    public_endpoint: str = ""
    """The same as clients see it, for the URLs given to them; empty: as above.
    TUNEFORGE_REGISTRY_S3_PUBLIC_ENDPOINT."""
    region: str = "us-east-1"
    """TUNEFORGE_REGISTRY_S3_REGION."""
    timeout_s: float = S3_TIMEOUT_S
    """Seconds without a byte after which a request to the store is given up. 20: longer than a busy store thinks.
    TUNEFORGE_REGISTRY_S3_TIMEOUT_S."""
    url_life_s: float = URL_LIFE_S
    """Seconds that a presigned URL lasts. An hour: time for one part on a slow line.
    TUNEFORGE_REGISTRY_S3_URL_LIFE_S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """The home of blobs and the collector."""

    s3: S3Settings | None = None
    """None: a folder below the data folder. TUNEFORGE_REGISTRY_BLOBS."""
    cache_bytes: int = CACHE_BYTES
    """Bytes of S3 blobs that are kept on the local disk for checks. 10 GiB. TUNEFORGE_REGISTRY_CACHE_BYTES."""
    collect_every_s: float = COLLECT_EVERY_S
    """Seconds between two runs of the collector; 0: only when asked to. An hour: a run costs a few queries.
    TUNEFORGE_REGISTRY_COLLECT_EVERY_S."""
    upload_silence_s: float = UPLOAD_SILENCE_S
    """Seconds without a message after which the stream of an upload is ended; what arrived is kept. Five minutes:
    a chunk over the slowest line takes less, and a client that is gone does not hold a stream for ever.
    TUNEFORGE_REGISTRY_UPLOAD_SILENCE_S."""
    grace_s: float = GRACE_S
    """Seconds for which a blob that no version needs is kept after somebody last relied on it. A week: longer than any
    upload, and than a scheduler is away that still has to publish what was uploaded. TUNEFORGE_REGISTRY_GRACE_S."""

    @classmethod
    def from_env(cls, env: Environment) -> Self:
        """Reads the settings; problems are noted in `env`."""
        return cls(
            s3=s3_from_env(env),
            cache_bytes=env.integer("TUNEFORGE_REGISTRY_CACHE_BYTES", default=CACHE_BYTES),
            collect_every_s=env.seconds("TUNEFORGE_REGISTRY_COLLECT_EVERY_S", default=COLLECT_EVERY_S),
            upload_silence_s=env.seconds("TUNEFORGE_REGISTRY_UPLOAD_SILENCE_S", default=UPLOAD_SILENCE_S),
            grace_s=env.seconds("TUNEFORGE_REGISTRY_GRACE_S", default=GRACE_S),
        )


def s3_from_env(env: Environment, variable: str = "TUNEFORGE_REGISTRY_BLOBS") -> S3Settings | None:
    """Reads a bucket that a variable names; problems are noted in `env`."""
    home = env.text(variable).strip()
    if not home:
        return None
    scheme, _, rest = home.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket) or ".." in bucket:
        env.refuse(variable, "s3://bucket/prefix with a bucket name of 3 to 63 of a-z, 0-9, - and .")
        return None
    if prefix and (
        not _PREFIX.fullmatch(prefix) or len(prefix) > _LONGEST_PREFIX or {".", ".."} & {*prefix.split("/")}
    ):
        env.refuse(variable, f"s3://bucket/prefix, the prefix at most {_LONGEST_PREFIX} plain characters")
    return S3Settings(
        bucket=bucket,
        prefix=prefix,
        credentials=_credentials(env),
        endpoint=_endpoint(env, "TUNEFORGE_REGISTRY_S3_ENDPOINT") or _AWS,
        public_endpoint=_endpoint(env, "TUNEFORGE_REGISTRY_S3_PUBLIC_ENDPOINT"),
        region=env.text("TUNEFORGE_REGISTRY_S3_REGION").strip() or "us-east-1",
        timeout_s=env.seconds("TUNEFORGE_REGISTRY_S3_TIMEOUT_S", default=S3_TIMEOUT_S, minimum=0.1, maximum=600),
        url_life_s=env.seconds(
            "TUNEFORGE_REGISTRY_S3_URL_LIFE_S", default=URL_LIFE_S, minimum=1, maximum=LONGEST_LIFE_S
        ),
    )


def _endpoint(env: Environment, name: str) -> str:
    value = env.text(name).strip().rstrip("/")
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.username):
        env.refuse(name, "http://host:port or https://host:port, without a path")
        return ""
    return value


def _credentials(env: Environment) -> Credentials:
    file = env.file("TUNEFORGE_REGISTRY_S3_CREDENTIALS")
    if file is None:
        texts = (env.text(f"AWS_{each}").strip() for each in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
        found = Credentials(*texts)
    else:
        found = _read_credentials(file)
    if not found.access_key or not found.secret_key:
        # The value of a variable that might be a secret must not be repeated, so `refuse` is not used.
        env.problems.append(
            "blobs in S3 need credentials: name a JSON file with access_key and secret_key in "
            "TUNEFORGE_REGISTRY_S3_CREDENTIALS, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return found


def _read_credentials(file: Path) -> Credentials:
    try:
        content = json.loads(file.read_text())
        fields = [content.get(each, "") for each in ("access_key", "secret_key", "session_token")]
        return Credentials(*fields) if all(isinstance(each, str) for each in fields) else Credentials("", "")
    except (OSError, ValueError, AttributeError):
        return Credentials("", "")
