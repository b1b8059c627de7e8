"""Jobs, attempts, checkpoints and nodes: record -> message, and back where a message comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from services.scheduler.gangs import deciding_part
from services.scheduler.jobs import LIVE_ATTEMPT, TERMINAL, AttemptEnd, AttemptState, JobState
from services.scheduler.records import Attempt, Capacity, Checkpoint, Job, Node, Ref
from services.scheduler.wire.budgets import job_budget
from services.scheduler.wire.failures import failure_from_bytes
from services.scheduler.wire.options import fault_count
from services.scheduler.wire.scheduling import drain_to_proto, put_scheduling
from services.scheduler.wire.times import optional_timestamp, timestamp
from tuneforge import durations
from tuneforge.names import NodeName
from tuneforge.v1 import events_pb2, jobs_pb2, nodes_pb2, spec_pb2, types_pb2

M = TypeVar("M", bound=Message)

_JOB_STATES = {state: jobs_pb2.JobState.Value(f"JOB_STATE_{state}") for state in JobState}
_JOB_STATE_NAMES = {number: state for state, number in _JOB_STATES.items()}


def job_state_to_proto(state: JobState) -> jobs_pb2.JobState.ValueType:
    """Converts a state to its number."""
    return _JOB_STATES[state]


def job_state_from_proto(number: int) -> JobState | None:
    """Converts a number to a state; None when this release does not know it."""
    return _JOB_STATE_NAMES.get(jobs_pb2.JobState.ValueType(number))


def job_to_proto(job: Job) -> jobs_pb2.Job:
    """Converts a job to its resource."""
    change = events_pb2.StateChange(to=str(job.state), reason=job.reason, message=job.message)
    setattr(change, "from", job.from_state)  # a keyword of Python
    message = jobs_pb2.Job(
        name=str(job.name),
        spec=_read(spec_pb2.TrainingSpec(), job.spec),
        state=job_state_to_proto(job.state),
        last_change=change,
        attempt=job.attempt,
        version=ref_to_proto(job.published),
        base=ref_to_proto(job.base),
        train=ref_to_proto(job.train),
        validation=ref_to_proto(job.validation),
        step=job.step,
        total_steps=job.total_steps,
        create_time=timestamp(job.create_ms),
        start_time=optional_timestamp(job.start_ms),
        end_time=optional_timestamp(job.end_ms),
        creator=job.creator,
        labels=dict(job.labels),
        latest_job_seq=job.latest_seq,
        compacted_job_seq=job.compaction.through_seq,
        conditions=_conditions(job),
        faults=fault_count(job),
        rerun_of=job.rerun_of or "",
        training_digest=job.training_digest or "",
        reused_from=job.reused_from or "",
        ttl=None if job.ttl_ms is None else durations.from_seconds(job.ttl_ms / 1000),
        expire_time=optional_timestamp(job.expire_ms),
        trial=job.trial or "",
    )
    put_scheduling(job, message)
    if job.verifies is not None:
        _read(message.verification, job.verifies)
    elif job.origin is not None:
        message.from_checkpoint = job.origin.name
    if job.failure is not None:
        _read(message.failure, job.failure)
    if job.estimate is not None:
        _read(message.memory_estimate, job.estimate)
    if job.resource_estimate is not None:
        _read(message.resource_estimate, job.resource_estimate)
    job_budget(message, job.budget, job.spent, has_ended=job.state in TERMINAL)
    return message


def _read(message: M, stored: bytes) -> M:
    """Reads stored bytes into a message; what is damaged is left out, for a job that was put aside is listed too."""
    try:
        message.MergeFromString(stored)
    except DecodeError:
        message.Clear()
    return message


def _conditions(job: Job) -> list[jobs_pb2.JobCondition.ValueType]:
    found = {
        jobs_pb2.JOB_CONDITION_UNREACHABLE: job.is_unreachable,
        jobs_pb2.JOB_CONDITION_STALLED: job.is_stalled,
        jobs_pb2.JOB_CONDITION_LATE: job.is_late,
    }
    return [condition for condition, holds in found.items() if holds]


def job_bytes(job: Job, warnings: Iterable[str] = ()) -> bytes:
    """Returns a job's resource as it is kept with a request id, with what the caller is to know beside."""
    message = job_to_proto(job)
    message.warnings.extend(warnings)
    return message.SerializeToString()


def attempt_to_proto(parts: Sequence[Attempt]) -> jobs_pb2.Attempt:
    """Converts an attempt to its resource.

    Args:
        parts: All of its parts, by rank; the first one stands for it, and in its end the one that decided.
    """
    first, live = parts[0], [part for part in parts if part.state in LIVE_ATTEMPT]
    deciding = first if live else parts[deciding_part([end_of_part(part) for part in parts])]
    message = jobs_pb2.Attempt(
        name=str(first.name),
        node=str(NodeName(first.node)),
        state=_attempt_state((live[0] if live else deciding).state),
        resumed_step=first.resumed_step,
        step=first.step,
        create_time=timestamp(first.create_ms),
        end_time=None if live else optional_timestamp(max(part.end_ms or 0 for part in parts) or None),
        rows_at_once=first.rows_at_once,
    )
    if not live and deciding.failure is not None:
        message.failure.MergeFromString(deciding.failure)
    if first.fault_budget:
        message.fault_budget = jobs_pb2.FaultBudget.Value(f"FAULT_BUDGET_{first.fault_budget}")
    if len(parts) > 1:
        message.parts.extend(map(_part_to_proto, parts))
    return message


def _part_to_proto(part: Attempt) -> jobs_pb2.AttemptPart:
    message = jobs_pb2.AttemptPart(
        node_rank=part.node_rank,
        node=str(NodeName(part.node)),
        state=_attempt_state(part.state),
        end_time=optional_timestamp(part.end_ms),
    )
    if part.failure is not None:
        message.failure.MergeFromString(part.failure)
    return message


def _attempt_state(state: AttemptState) -> nodes_pb2.AttemptState.ValueType:
    return nodes_pb2.AttemptState.Value(f"ATTEMPT_STATE_{state}")


def end_of_part(part: Attempt) -> AttemptEnd:
    """Returns how a part of an attempt ended, as it is stored; it must have ended."""
    return AttemptEnd(state=part.state, failure=failure_from_bytes(part.failure) if part.failure is not None else None)


def checkpoint_to_proto(name: str, checkpoint: Checkpoint) -> jobs_pb2.Checkpoint:
    """Converts a checkpoint of the job `name` to its resource."""
    return jobs_pb2.Checkpoint(
        name=f"{name}/checkpoints/{checkpoint.step}",
        digest=checkpoint.digest,
        size_bytes=checkpoint.size_bytes,
        node=str(NodeName(checkpoint.node)) if checkpoint.node else "",
        attempt=checkpoint.attempt,
        create_time=timestamp(checkpoint.create_ms),
        manifest=types_pb2.Manifest.FromString(checkpoint.manifest) if checkpoint.manifest is not None else None,
        durable_time=optional_timestamp(checkpoint.durable_ms),
        is_pinned=checkpoint.is_pinned,
        is_best=checkpoint.is_best,
    )


def node_to_proto(node: Node, held: Iterable[Any] = ()) -> nodes_pb2.Node:
    """Converts a node to its resource; its manager token stays here.

    Args:
        node: The node as it is stored.
        held: The attempts that it named in its last heartbeat.
    """
    return nodes_pb2.Node(
        name=str(NodeName(node.node)),
        address=node.address,
        capacity=nodes_pb2.NodeCapacity.FromString(node.capacity_message),
        labels=dict(node.labels),
        state=nodes_pb2.NodeState.Value(f"NODE_STATE_{node.shown_state}"),
        is_managed=True,
        attempts=held,
        lease_expire_time=timestamp(node.lease_until_ms),
        generation=node.generation,
        version=node.version,
        drain=drain_to_proto(node.drain),
    )


def capacity_from_bytes(stored: bytes) -> Capacity:
    """Converts a stored `NodeCapacity`."""
    message = nodes_pb2.NodeCapacity.FromString(stored)
    return Capacity(
        device_bytes=tuple(device.memory_bytes for device in message.devices),
        device_models=tuple(device.model for device in message.devices),
        cpu_millis=message.cpu_millis,
        memory_bytes=message.memory_bytes,
        slots=message.slots,
        software=message.software,
    )


def ref_to_proto(ref: Ref | None) -> types_pb2.VersionRef | None:
    """Converts a pinned version to its message."""
    return None if ref is None else types_pb2.VersionRef(version=ref.version, digest=ref.digest)
