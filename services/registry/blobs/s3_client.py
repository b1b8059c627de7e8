"""The connection to an S3 store of the operator's settings."""

from urllib.parse import urlsplit

import minio
import urllib3

from services.registry.blobs.settings import S3Settings

_CONNECT_S = 3.0


def pool_of(settings: S3Settings, *, connections: int) -> urllib3.PoolManager:
    """Returns connections that try nothing again by themselves, and follow no redirect.

    Args:
        settings: How long is waited for a byte.
        connections: Most that are kept open.
    """
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=min(_CONNECT_S, settings.timeout_s), read=settings.timeout_s),
        retries=urllib3.Retry(0, redirect=0),
        maxsize=connections,
    )


def client_of(settings: S3Settings, pool: urllib3.PoolManager) -> minio.Minio:
    """Returns the client of the store that settings name."""
    endpoint = urlsplit(settings.endpoint)
    return minio.Minio(
        endpoint.netloc,
        access_key=settings.credentials.access_key,
        secret_key=settings.credentials.secret_key,
        session_token=settings.credentials.session_token or None,
        region=settings.region,
        secure=endpoint.scheme == "https",
        http_client=pool,
    )
