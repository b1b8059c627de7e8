"""What an exception becomes on the wire, and how much of it."""

import errno

import grpc
import pytest
from google.rpc import error_details_pb2

from services.grpckit import status
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from tuneforge.errors import NotFound, Unavailable, from_status
from tuneforge.manifest import InvalidManifest
from tuneforge.names import InvalidName, JobName

CLIENT_LIMIT_BYTES = 8192


def _details(error: ServiceError) -> list[str]:
    return [detail.type_url.rpartition(".")[2] for detail in status.to_proto(error, "r").details]


def test_each_code_brings_its_details() -> None:
    """ErrorInfo always; RetryInfo, PreconditionFailure and BadRequest where they belong; each type once."""
    assert _details(ServiceError("NOT_FOUND", "m")) == ["ErrorInfo", "LocalizedMessage"]
    assert _details(ServiceError("WRONG_STATE", "m")) == ["ErrorInfo", "PreconditionFailure", "LocalizedMessage"]
    assert _details(ServiceError("DRAINING", "m")) == ["ErrorInfo", "RetryInfo", "LocalizedMessage"]
    assert _details(ServiceError("TOO_MANY_CALLS", "m")) == ["ErrorInfo", "RetryInfo", "LocalizedMessage"]
    violations = [FieldViolation("a", "b")]
    assert _details(invalid_fields(violations)) == ["ErrorInfo", "BadRequest", "LocalizedMessage"]


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600"])
def test_a_long_answer_is_cut_to_what_clients_take(letter: str) -> None:
    """However long texts, lists and metadata are, the trailers stay below the limit and say what is missing."""
    error = ServiceError(
        Reason.INVALID_DATA,
        letter * 100_000,
        fields=[FieldViolation(f"rows[{n}].{letter * 1000}", letter * 5000) for n in range(1000)],
        metadata={f"key{n}": letter * 1000 for n in range(3)},
    )
    rich = status.RichStatus(error, "r" * 32)
    percent_encoded = sum(1 if each < 128 else 3 for each in rich.details.encode())
    on_wire = percent_encoded + sum(len(key) + len(value) + 32 for key, value in rich.trailing_metadata)
    assert on_wire < CLIENT_LIMIT_BYTES
    seen = from_status(status.to_proto(error, "r"))
    assert seen.message.endswith("...")
    assert 0 < len(seen.fields) == 1000 - int(seen.metadata["fields_omitted"])


def test_twenty_ordinary_problems_all_fit() -> None:
    """A spec with many faults is answered whole."""
    fields = [FieldViolation(f"spec.lora.field_{n}", f"{n} is out of range; it is 1 to 1024") for n in range(20)]
    assert len(from_status(status.to_proto(invalid_fields(fields), "r")).fields) == 20


def test_expected_exceptions_have_their_reasons() -> None:
    """What callers, peers and disks cause is answered with a reason; anything else is ours."""
    with pytest.raises(InvalidName) as caught:
        JobName.parse("x")
    answer = status.expected(caught.value)
    assert answer is not None
    assert (answer.reason, answer.metadata["expected"]) == ("INVALID_NAME", JobName.pattern)
    for error, reason in (
        (InvalidManifest("a", "m"), "INVALID_FIELD"),
        (OSError(errno.ENOSPC, "m"), "DISK_FULL"),
        (NotFound("NOT_FOUND", "m", request_id="r"), "NOT_FOUND"),
        (Unavailable("PEER_UNAVAILABLE", "nobody"), "PEER_UNAVAILABLE"),
        (ServiceError("NODE_FULL", "m"), "NODE_FULL"),
    ):
        answer = status.expected(error)
        assert answer is not None
        assert answer.reason == reason
    for fault in (ValueError("x"), OSError(errno.EIO, "x"), KeyError("x"), AssertionError()):
        assert status.expected(fault) is None


def test_the_answer_to_a_fault_has_its_incident_only() -> None:
    """INTERNAL tells the id under which the log has it."""
    answer = status.internal("abc")
    assert (answer.code, answer.metadata) == ("INTERNAL", {"incident": "abc"})


class _PeerError(grpc.RpcError):
    """What a stub raises for an answer of another service."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__()
        self._rich = status.RichStatus(error, "r")

    def code(self) -> grpc.StatusCode:
        return self._rich.code

    def details(self) -> str:
        return self._rich.details

    def trailing_metadata(self) -> object:  # type: ignore[override]  # pairs, as the aio client gives them
        return self._rich.trailing_metadata


def test_the_reason_of_a_peer_is_passed_on() -> None:
    """NOT_FOUND of another service stays NOT_FOUND, with its metadata."""
    answer = status.from_peer(_PeerError(ServiceError("NOT_FOUND", "m", metadata={"name": "n"})))
    assert (answer.reason, answer.message, answer.metadata) == ("NOT_FOUND", "m", {"name": "n"})


def test_a_peer_that_refuses_our_token_is_unavailable() -> None:
    """The caller's token was fine: it must not read that it is not."""
    answer = status.from_peer(_PeerError(ServiceError("UNAUTHENTICATED", "bad token")), peer="the registry")
    assert answer.reason == "PEER_UNAVAILABLE"
    assert answer.message.startswith("the registry did not answer")


def test_retry_delay_is_the_errors_own() -> None:
    """RetryInfo carries the delay that was given, else the table's."""
    for given, seen in ((None, 5.0), (0.25, 0.25)):
        proto = status.to_proto(ServiceError("NODE_FULL", "m", retry_after_s=given), "r")
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in proto.details)
        assert retry.retry_delay.ToTimedelta().total_seconds() == seen
