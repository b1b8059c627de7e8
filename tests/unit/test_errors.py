"""The table of errors: complete, usable, and the same at both ends of the wire."""

import pickle
import subprocess
import sys
from typing import Any

import grpc
import pytest

from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.status import to_proto
from tuneforge.errors import (
    TABLE,
    Conflict,
    InternalError,
    InvalidArgument,
    NotFound,
    Reason,
    TuneforgeError,
    from_rpc_error,
    from_status,
)
from tuneforge.v1 import errors_pb2


def test_every_reason_of_the_contract_has_a_row() -> None:
    """The table has exactly the reasons that the proto declares, each with a code, an exception and a cure."""
    declared = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert set(TABLE) == declared == {reason.value for reason in Reason}
    codes = {code.name for code in grpc.StatusCode}
    for reason, row in TABLE.items():
        assert row.code in codes, reason
        assert issubclass(row.exception, TuneforgeError), reason
        assert row.cure.endswith("."), reason


@pytest.mark.parametrize("first", ["errors", "exceptions", "reason_table"])
def test_an_exception_knows_its_cure_whichever_module_came_first(first: str) -> None:
    """The table names the exceptions, and an exception looks up the table: neither needs the other one loaded."""
    code = (
        f"import tuneforge.{first}; from tuneforge.exceptions import NotFound; print(NotFound('NOT_FOUND', 'x').cure)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == TABLE[Reason.NOT_FOUND].cure


def test_codes_are_those_that_the_contract_documents() -> None:
    """The code in the table is the one that the proto's comment announces first."""
    comments = errors_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"]
    assert comments.values_by_name["ERROR_REASON_NOT_FOUND"].number == Reason.NOT_FOUND.number
    assert TABLE["ETAG_MISMATCH"].code == "ABORTED"
    assert TABLE["DOES_NOT_FIT"].code == "FAILED_PRECONDITION"
    assert TABLE["CURSOR_OUT_OF_RANGE"].code == "OUT_OF_RANGE"


@pytest.mark.parametrize("reason", list(Reason))
def test_an_error_comes_back_as_it_was_raised(reason: Reason) -> None:
    """Whatever a service raises reaches the SDK with its reason, text, fields, metadata and request id."""
    fields = [FieldViolation("spec.lora.rank", "0 is not 1 or more")]
    raised = ServiceError(reason, "it is wrong", fields=fields, metadata={"state": "DONE"}, retry_after_s=2.5)
    seen = from_status(to_proto(raised, "request-1"))
    assert type(seen) is TABLE[reason].exception
    assert (seen.reason, seen.message, seen.cure) == (reason, "it is wrong", TABLE[reason].cure)
    assert (seen.fields, seen.metadata, seen.request_id) == (tuple(fields), {"state": "DONE"}, "request-1")
    has_retry = TABLE[reason].code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    assert seen.retry_after_s == (2.5 if has_retry else None)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_keeps_its_number(reason: Reason) -> None:
    """A reason and its number in the proto name each other."""
    assert Reason.from_number(reason.number) is reason


def test_a_reason_of_a_later_release_is_internal() -> None:
    """A number that this release does not know is a fault of somebody's, not a crash."""
    assert Reason.from_number(9999) is Reason.INTERNAL
    assert Reason.from_number(0) is Reason.INTERNAL


def test_the_text_says_what_where_and_what_to_do() -> None:
    """`str()` of an exception has the message, each field and the cure."""
    error = InvalidArgument(
        "INVALID_FIELD", "two are wrong", fields=[FieldViolation("a", "1"), FieldViolation("b", "2")]
    )
    assert str(error).splitlines() == ["two are wrong", "  a: 1", "  b: 2", "Correct the fields that are named."]
    assert str(InvalidArgument("INVALID_FIELD", "m", cure="Do that.")) == "m\nDo that."


def test_an_error_survives_a_pickle() -> None:
    """An exception that crosses a process boundary keeps everything."""
    error = NotFound("NOT_FOUND", "m", fields=[FieldViolation("a", "b")], metadata={"k": "v"}, request_id="7")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is NotFound
    assert (str(copy), copy.metadata, copy.request_id) == (str(error), error.metadata, "7")


class _Broken(grpc.RpcError):
    """What a stub raises when no service answered."""

    def __init__(self, code: grpc.StatusCode, details: str | None = "no route", trailing: Any = ()) -> None:
        super().__init__()
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded"),
        (grpc.StatusCode.CANCELLED, "Cancelled"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "ResourceExhausted"),
        (grpc.StatusCode.UNIMPLEMENTED, "FailedPrecondition"),
        (grpc.StatusCode.UNKNOWN, "InternalError"),
    ],
)
def test_an_answer_of_grpc_itself_is_typed_by_its_code(code: grpc.StatusCode, name: str) -> None:
    """Without an ErrorInfo the code decides, and the library's text is kept."""
    error = from_rpc_error(_Broken(code))
    assert type(error).__name__ == name
    assert error.message == "no route"


def test_broken_details_do_not_hide_the_error() -> None:
    """Details that cannot be parsed, or none at all, still give a typed exception."""
    broken = _Broken(grpc.StatusCode.ABORTED, None, (("grpc-status-details-bin", b"\xff\xff"),))
    assert isinstance(from_rpc_error(broken), InternalError)
    assert from_rpc_error(_Broken(grpc.StatusCode.UNAVAILABLE, "x", None)).reason == "PEER_UNAVAILABLE"
    assert isinstance(from_rpc_error(grpc.RpcError()), TuneforgeError)


def test_reasons_of_the_same_kind_share_a_class() -> None:
    """ABORTED is one exception, told apart by its reason."""
    assert {TABLE[reason].exception for reason in ("ETAG_MISMATCH", "STALE_ATTEMPT", "OFFSET_MISMATCH")} == {Conflict}


def test_constructors_fill_in_message_and_metadata() -> None:
    """`invalid_fields` and `not_found` write the sentence."""
    error = invalid_fields([FieldViolation("a", "is wrong"), FieldViolation("b", "is too")])
    assert (error.message, error.code, len(error.fields)) == ("a: is wrong (and 1 more)", "INVALID_ARGUMENT", 2)
    gone = not_found("job", "projects/p/jobs/j")
    assert (gone.message, gone.metadata["name"]) == ("there is no job 'projects/p/jobs/j'", "projects/p/jobs/j")


def test_a_reason_outside_the_table_is_a_fault_of_the_raiser() -> None:
    """Nobody can raise what the contract does not have."""
    with pytest.raises(ValueError, match="SOMETHING"):
        ServiceError("SOMETHING", "m")
