"""Events: every kind of the contract has its dataclass, and no figure changes on the way."""

import math
from datetime import UTC, datetime

import pytest

from tuneforge.events import _CONVERTERS, AttemptOutcome, LogLine, Resolved, StateChange, StepMetrics, event_from_proto
from tuneforge.specs.spec import LoraMethod
from tuneforge.v1 import errors_pb2, events_pb2, types_pb2
from tuneforge.values import ArtifactKind, FaultClass


def test_every_kind_of_the_contract_is_converted() -> None:
    """A new payload in the proto needs a converter here."""
    kinds = {field.name for field in events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert set(_CONVERTERS) == kinds


@pytest.mark.parametrize("kind", sorted(_CONVERTERS))
def test_an_event_without_figures_is_converted(kind: str) -> None:
    """Unset fields never break a reader."""
    message = events_pb2.Event(job="projects/p/jobs/j", job_seq=3, attempt=1, seq=2)
    getattr(message, kind).SetInParent()
    event = event_from_proto(message)
    assert (event.kind, event.job_seq, event.attempt, event.seq) == (kind, 3, 1, 2)
    assert event.payload is not None


def test_a_kind_of_a_later_release_is_passed_on_without_payload() -> None:
    """An old client goes on when a new service sends a kind that it does not know."""
    event = event_from_proto(events_pb2.Event(job_seq=1))
    assert (event.kind, event.payload) == ("unknown", None)


@pytest.mark.parametrize("loss", [0.0, 1 / 3, 1e-300, math.inf])
def test_loss_is_exact(loss: float) -> None:
    """The bits of a loss are those on the wire, 0 and infinity included."""
    message = events_pb2.Event(step=events_pb2.StepMetrics(step=1, loss=loss))
    message.step.eta.FromMilliseconds(90_500)
    payload = event_from_proto(message).payload
    assert isinstance(payload, StepMetrics)
    assert payload.loss == loss
    assert payload.eta_s == 90.5


def test_state_log_and_time() -> None:
    """Words lose the contract's prefixes, times have a zone, an unset severity is INFO."""
    message = events_pb2.Event(state=events_pb2.StateChange(to="RUNNING", reason="STARTED"))
    setattr(message.state, "from", "STARTING")
    message.time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    event = event_from_proto(message)
    assert event.payload == StateChange(from_state="STARTING", to_state="RUNNING", reason="STARTED", message="")
    assert event.time == datetime(2026, 1, 2, tzinfo=UTC)
    log = event_from_proto(events_pb2.Event(log=events_pb2.LogLine(message="x"))).payload
    assert isinstance(log, LogLine)
    assert log.severity == "INFO"


def test_an_outcome_carries_failure_and_manifest() -> None:
    """A failure is whole: reason, message, cure, whose fault."""
    failure = types_pb2.Failure(
        reason=errors_pb2.ERROR_REASON_OUT_OF_MEMORY, message="m", cure="c", fault=types_pb2.FAULT_CLASS_USER
    )
    outcome = events_pb2.AttemptOutcome(
        result=events_pb2.ATTEMPT_RESULT_FAILED,
        failure=failure,
        manifest=types_pb2.Manifest(digest="d"),
        artifact_kind=events_pb2.ARTIFACT_KIND_ADAPTER,
        metrics={"loss": 1.5},
    )
    payload = event_from_proto(events_pb2.Event(outcome=outcome)).payload
    assert isinstance(payload, AttemptOutcome)
    assert payload.failure is not None
    assert (payload.failure.reason, payload.failure.cure) == ("OUT_OF_MEMORY", "c")
    assert payload.failure.fault is FaultClass.USER
    assert payload.manifest is not None
    assert payload.artifact_kind is ArtifactKind.ADAPTER
    assert payload.metrics == {"loss": 1.5}


def test_a_resolved_spec_is_a_spec() -> None:
    """What was decided comes as the same dataclass that a client submits."""
    message = events_pb2.Event()
    message.resolved.spec.lora.rank = 4
    payload = event_from_proto(message).payload
    assert isinstance(payload, Resolved)
    assert payload.spec.method == LoraMethod(rank=4)


def test_words_of_a_later_release_are_unknown() -> None:
    """An enum number that this release lacks becomes UNKNOWN."""
    message = events_pb2.Event()
    message.outcome.MergeFromString(b"\x08\x63")  # result = 99
    payload = event_from_proto(message).payload
    assert isinstance(payload, AttemptOutcome)
    assert payload.result == "UNKNOWN"
