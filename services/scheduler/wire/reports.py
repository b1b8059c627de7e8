"""What nodes say of attempts: message -> dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from services.scheduler.jobs import LIVE_ATTEMPT, AttemptEnd, AttemptState, Failure
from services.scheduler.wire.events import Batch
from services.scheduler.wire.failures import failure_from_proto
from tuneforge.v1 import events_pb2, nodes_pb2, trainer_pb2

_STATES = {nodes_pb2.AttemptState.Value(f"ATTEMPT_STATE_{state}"): state for state in AttemptState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An attempt as its node sees it."""

    name: str
    node_rank: int
    state: AttemptState
    last_seq: int
    """Number of the newest event in its spool."""
    failure: Failure | None
    rendezvous: str = ""
    """`host:port` at which the part with rank 0 waits for the others; empty: not yet, or there are none."""
    stall: bytes | None = None
    """Serialised `Stall`; set while it makes no progress."""

    @property
    def is_live(self) -> bool:
        """Whether it may still compute."""
        return self.state in LIVE_ATTEMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One message of `WatchAttempt`."""

    batch: Batch
    status: Status


def status_from_proto(message: nodes_pb2.AttemptStatus) -> Status:
    """Converts an attempt's status; a state that this release does not know counts as running."""
    return Status(
        name=message.name,
        node_rank=message.node_rank,
        state=_STATES.get(message.state, AttemptState.RUNNING),
        last_seq=message.last_seq,
        failure=failure_from_proto(message.failure) if message.HasField("failure") else None,
        rendezvous=message.rendezvous,
        stall=message.stall.SerializeToString() if message.HasField("stall") else None,
    )


def report_from_proto(message: trainer_pb2.WatchAttemptResponse) -> Report:
    """Converts a message of `WatchAttempt`."""
    return Report(batch=Batch(tuple(message.events)), status=status_from_proto(message.status))


def end_of(status: Status, outcome: bytes | None) -> AttemptEnd:
    """Returns how an attempt ended, from its node's word and from the outcome in its own events.

    The outcome is the worker's last word and wins; a success of the first part without a manifest is none.
    """
    if outcome is not None:
        said = events_pb2.AttemptOutcome.FromString(outcome)
        is_whole = said.manifest.files or said.replayed_weights_digest or status.node_rank
        if said.result == events_pb2.ATTEMPT_RESULT_SUCCEEDED and is_whole:
            return AttemptEnd(state=AttemptState.SUCCEEDED)
        if said.result == events_pb2.ATTEMPT_RESULT_FAILED:
            return AttemptEnd(state=AttemptState.FAILED, failure=failure_from_proto(said.failure))
        if said.result == events_pb2.ATTEMPT_RESULT_INTERRUPTED:
            return AttemptEnd(state=AttemptState.INTERRUPTED)
        if said.result == events_pb2.ATTEMPT_RESULT_CANCELLED:
            return AttemptEnd(state=AttemptState.CANCELLED)
    if status.state in {AttemptState.FAILED, AttemptState.LOST} and status.failure is not None:
        return AttemptEnd(state=status.state, failure=status.failure)
    failure = Failure(
        reason="WORKER_LOST",
        message=f"The attempt ended as {status.state} without an outcome.",
        cure="Look at the node's log for the end of its process.",
    )
    return AttemptEnd(state=AttemptState.LOST, failure=failure)
