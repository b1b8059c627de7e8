"""What an object store answers when it does not do what was asked, in the words and codes of the suite.

Faults that pass (nobody answers, 5xx, slow down, a body that broke off) are tried again with growing, random waits;
then they are STORAGE_UNAVAILABLE. What only the operator can correct (bucket, credentials, region, clock) is
STORAGE_MISCONFIGURED at once. No URL, key or secret of a request gets into a text.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import minio
import minio.error
import urllib3

from services.grpckit.errors import Reason, ServiceError

T = TypeVar("T")

TRIES = 4
_FIRST_WAIT_S = 0.1
_PASSING_CODES = frozenset(
    {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "OperationAborted", "BadDigest"}
    | {"XAmzContentSHA256Mismatch", "IncompleteBody", "TooManyRequests"}
)
_CURES = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "the credentials may not do it",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "the clocks differ by too much",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "PermanentRedirect": "the bucket is in another region",
}


def patient(run: Callable[[], T], *, tries: int = TRIES) -> T:
    """Runs something against the store, again after faults that pass.

    Args:
        run: What to do; repeated, it must do no harm.
        tries: How often, >= 1.

    Raises:
        ServiceError: `STORAGE_UNAVAILABLE`, `STORAGE_MISCONFIGURED`.
        minio.S3Error: `NoSuchKey` and `NoSuchUpload`, which only the caller can judge.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        tries -= 1
        try:
            return run()
        except (minio.error.MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            fault = told(error)
            if fault is None:
                raise
            if fault.reason is not Reason.STORAGE_UNAVAILABLE or tries <= 0:
                raise fault from None
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter against thundering herds, not a secret
        wait_s *= 2


def told(error: Exception) -> ServiceError | None:
    """Returns what a fault is for a caller; None when it says that a key or an upload is not there."""
    if isinstance(error, minio.S3Error):
        code, status = error.code or "", error.response.status
        if code in {"NoSuchKey", "NoSuchUpload"}:
            return None
        return _of_answer(code, status)
    if isinstance(error, minio.error.ServerError):
        return _of_answer("", error.status_code)
    if isinstance(error, minio.error.InvalidResponseError):
        return _unavailable("its answer is not one of S3")
    return _unavailable(_kind_of(error))


def _of_answer(code: str, status: int) -> ServiceError:
    if code in _PASSING_CODES or status >= 500 or status == 429:
        return _unavailable(code or f"status {status}")
    problem = _CURES.get(code, f"it answered {code or 'nothing'} with status {status}")
    return ServiceError(
        Reason.STORAGE_MISCONFIGURED,
        f"the object store refuses the registry: {problem}",
        metadata={"code": code, "status": str(status)},
    )


def _unavailable(problem: str) -> ServiceError:
    return ServiceError(Reason.STORAGE_UNAVAILABLE, f"the object store does not do its work: {problem}")


def _kind_of(error: Exception) -> str:
    """Returns the kind of a fault of the network; its text may hold a URL."""
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, Exception) else error
    known = {
        urllib3.exceptions.NewConnectionError: "the connection was refused",
        urllib3.exceptions.ConnectTimeoutError: "nobody answered in time",
        urllib3.exceptions.ReadTimeoutError: "the answer took too long",
        urllib3.exceptions.ProtocolError: "the connection broke off",
    }
    return next((text for kind, text in known.items() if isinstance(cause, kind)), type(cause).__name__)
