"""When and where jobs may run: as it is stored, and on its way to the resource."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.scheduler.records import Drain, Job, Work
from services.scheduler.wire.times import optional_timestamp, timestamp
from tuneforge.specs.scheduling import DEFAULT, PriorityClass, Scheduling, scheduling_from_proto, scheduling_to_proto
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduling_pb2

PRIORITIES = {PriorityClass.LOW: -1, PriorityClass.NORMAL: 0, PriorityClass.HIGH: 1}
"""Classes as they are stored: a higher one goes first."""


def scheduling_values(value: Scheduling) -> dict[str, Any]:
    """Returns the columns of what was asked for."""
    return {
        "scheduling": scheduling_to_proto(value).SerializeToString(deterministic=True),
        "priority": PRIORITIES[value.priority],
        "is_preemptible": value.is_preemptible,
        "start_after_ms": _milliseconds(value.start_after),
        "deadline_ms": _milliseconds(value.deadline),
    }


def scheduling_from_bytes(stored: bytes | None) -> Scheduling:
    """Converts a stored `Scheduling`; None: a job of an earlier release, which has the defaults."""
    return DEFAULT if stored is None else scheduling_from_proto(scheduling_pb2.Scheduling.FromString(stored))


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def predicted_ms(estimate: bytes | None) -> int:
    """Returns how long a run is predicted to take, from its serialised `ResourceEstimate`; 0: not known."""
    if estimate is None:
        return 0
    return round(jobs_pb2.ResourceEstimate.FromString(estimate).total_seconds.expected * 1000)


def put_scheduling(job: Job, message: jobs_pb2.Job) -> None:
    """Puts into a job's resource when and where it may run, and what its devices were used for."""
    if job.scheduling is not None:
        message.scheduling.MergeFromString(job.scheduling)
    else:
        message.scheduling.CopyFrom(scheduling_to_proto(DEFAULT))
    message.ledger.CopyFrom(ledger_to_proto(job.work))
    message.queued_time.CopyFrom(timestamp(job.queued_ms))


def ledger_to_proto(work: Work) -> scheduling_pb2.WorkLedger:
    """Converts what devices were used for."""
    return scheduling_pb2.WorkLedger(
        attained=work.attained_ms / 1000,
        lost_to_preemption=work.lost_preempted_ms / 1000,
        lost_to_faults=work.lost_faults_ms / 1000,
        saved=work.saved_ms / 1000,
        preemptions=work.preemptions,
    )


def drain_to_proto(drain: Drain | None) -> nodes_pb2.NodeDrain | None:
    """Converts why and until when a node takes no new work."""
    if drain is None:
        return None
    return nodes_pb2.NodeDrain(
        start_time=timestamp(drain.since_ms),
        deadline=optional_timestamp(drain.deadline_ms),
        reason=drain.reason,
        actor=drain.actor,
    )
