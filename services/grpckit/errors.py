"""What rules and stores raise when a call cannot be answered; knows no grpc.

`services/grpckit/status.py` turns a `ServiceError` into a `google.rpc.Status`, inside the outermost interceptor. Any
other exception is a fault: it is logged with an incident id and answered INTERNAL without its text. So raise a
`ServiceError` for everything that a caller can cause, and nothing for what only we can cause.
"""

from collections.abc import Iterable, Mapping

from tuneforge.errors import TABLE, FieldViolation, Reason

__all__ = ["FieldViolation", "Reason", "ServiceError", "invalid_fields", "not_found"]


class ServiceError(Exception):
    """An answer other than a result.

    Args:
        reason: Row of the table in `tuneforge/reason_table.py`; decides the gRPC code.
        message: What is wrong, with the value that is wrong: one sentence for a person.
        fields: All wrong fields of the request, for INVALID_FIELD, INVALID_DATA and INVALID_MODEL.
        metadata: All that varies in the message, by key.
        retry_after_s: Seconds after which a retry makes sense; None takes the reason's own value.

    Raises:
        ValueError: The reason is not in the table: a fault of the code that raises.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fields: Iterable[FieldViolation] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = Reason(reason)
        self.message = message
        self.fields = tuple(fields)
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.retry_after_s = retry_after_s if retry_after_s is not None else TABLE[self.reason].retry_after_s

    @property
    def cure(self) -> str:
        """What to do about it, from the table."""
        return TABLE[self.reason].cure

    @property
    def code(self) -> str:
        """Name of the gRPC status code, from the table."""
        return TABLE[self.reason].code


def invalid_fields(violations: Iterable[FieldViolation], *, reason: str = Reason.INVALID_FIELD) -> ServiceError:
    """Returns the error that lists all wrong fields at once.

    Args:
        violations: At least one.
        reason: INVALID_FIELD, INVALID_DATA or INVALID_MODEL.
    """
    fields = tuple(violations)
    first = f"{fields[0].field}: {fields[0].description}"
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return ServiceError(reason, first + more, fields=fields)


def not_found(kind: str, name: object) -> ServiceError:
    """Returns the error for a resource that is not there, or that the caller may not see.

    Args:
        kind: What was looked for, such as `job`.
        name: Its resource name.
    """
    return ServiceError(
        Reason.NOT_FOUND, f"there is no {kind} {str(name)!r}", metadata={"kind": kind, "name": str(name)}
    )
