"""The exceptions that the SDK raises, one for each kind of answer; import them from `tuneforge` or `tuneforge.errors`.

Which reason raises which of them is in `tuneforge.reason_table`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong."""

    field: str
    """Path of the field in the request, as in the proto: `spec.lora.rank`, `rows[3].messages`."""
    description: str
    """What is wrong with it, with the value, and what it may be: one sentence."""
    reason: str = ""
    """What kind of fault it is, for programs, such as `TRUNCATED`; empty where there is one kind only."""


class TuneforgeError(Exception):
    """What a service answered instead of a result; each subclass is one kind of answer.

    `str()` gives the whole text for a person: what is wrong, each wrong field, and what to do.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        cure: str | None = None,
        fields: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        """Stable name of the reason, see `Reason`; a gRPC code's name when something other than a service answered."""
        self.message = message
        """What is wrong, with the value that is wrong."""
        from tuneforge.reason_table import TABLE  # it names the exceptions of this module

        row = TABLE.get(reason)
        self.cure = cure if cure is not None else (row.cure if row else "")
        """What to do about it."""
        self.fields = tuple(fields)
        """All wrong fields of the request."""
        self.metadata = dict(metadata or {})
        """All that varies in the message, by key."""
        self.retry_after_s = retry_after_s
        """Seconds after which a retry makes sense; None where the service did not say."""
        self.request_id = request_id
        """The id under which every service that took part logged the call; empty when no service answered."""

    def __str__(self) -> str:
        lines = [self.message, *(f"  {violation.field}: {violation.description}" for violation in self.fields)]
        return "\n".join([*lines, self.cure] if self.cure else lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # The keyword-only arguments would be lost by the default, and an error may come from another process.
        return _rebuild, (type(self), (self.reason, self.message), self._keywords())

    def _keywords(self) -> dict[str, Any]:
        return {
            "cure": self.cure,
            "fields": self.fields,
            "metadata": self.metadata,
            "retry_after_s": self.retry_after_s,
            "request_id": self.request_id,
        }


def _rebuild(kind: type[TuneforgeError], args: tuple[str, str], keywords: dict[str, Any]) -> TuneforgeError:
    return kind(*args, **keywords)


class InvalidArgument(TuneforgeError):
    """The request is wrong, and would be wrong at any other time."""


class NotFound(TuneforgeError):
    """There is no such resource, or none that the caller may see."""


class AlreadyExists(TuneforgeError):
    """There is a resource with this name and other content."""


class Conflict(TuneforgeError):
    """Somebody else was faster: read again, decide again, retry."""


class FailedPrecondition(TuneforgeError):
    """The request is right, but not in the present state of the resource."""


class GateFailed(FailedPrecondition):
    """Gates keep an alias from a version; `fields` has each of them, as `policy/gate`, with what it found."""


class OutOfRange(TuneforgeError):
    """A cursor points at what is not kept any more, or not there yet."""


class ResourceExhausted(TuneforgeError):
    """A limit is reached; `retry_after_s` says when to try again."""


class Unavailable(TuneforgeError):
    """Nobody answers, for the moment; the same call may succeed later."""


class Unauthenticated(TuneforgeError):
    """The call came without a valid token."""


class PermissionDenied(TuneforgeError):
    """The caller is known, but may not do this."""


class DeadlineExceeded(TuneforgeError):
    """The answer took longer than the call's deadline; whether it took effect is not known."""


class Cancelled(TuneforgeError):
    """The caller gave up before the answer."""


class DataLoss(TuneforgeError):
    """Stored bytes are gone or damaged; only a copy from elsewhere helps."""


class InternalError(TuneforgeError):
    """A fault of the service; `metadata["incident"]` is the id under which it was logged."""


class JobFailed(TuneforgeError):
    """Something was started and then failed; its resource says why."""
