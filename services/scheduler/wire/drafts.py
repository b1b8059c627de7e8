"""Requests that make something: message -> dataclass, and the answer of `validate_only`."""

from __future__ import annotations

from functools import lru_cache

from services.scheduler.admission import Draft
from services.scheduler.jobs import JobState
from services.scheduler.queues.budgets import NOTHING_SPENT
from services.scheduler.records import NewJob
from services.scheduler.store.nodes import Registration
from services.scheduler.wire.budgets import budget_from_proto, job_budget
from services.scheduler.wire.options import options_of
from services.scheduler.wire.resources import job_state_to_proto, ref_to_proto
from tuneforge import durations
from tuneforge.names import NodeName
from tuneforge.specs.scheduling import DEFAULT, priority_of, scheduling_from_proto, scheduling_to_proto
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto, unknown_enums
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduler_pb2, spec_pb2

LONGEST_KEPT = 65536
"""Bytes of the longest spec that is kept to be known again."""


def draft_of(request: scheduler_pb2.CreateJobRequest, project: str, actor: str) -> Draft:
    """Converts what a caller asks for; the same spec gives the same object, by which `settling.py` knows it again."""
    message = request.spec.SerializeToString(deterministic=True)
    read = _spec_of if len(message) <= LONGEST_KEPT else _spec_of.__wrapped__
    spec, unknown = read(message)
    return Draft(
        project=project,
        job_id=request.job_id,
        spec=spec,
        unknown_enums=unknown,
        labels=dict(request.labels),
        creator=actor,
        options=options_of(request),
        from_checkpoint=request.from_checkpoint,
        message=message,
        scheduling=scheduling_from_proto(request.scheduling) if request.HasField("scheduling") else DEFAULT,
        has_unknown_class=priority_of(request.scheduling.priority) is None,
        budget=budget_from_proto(request.budget) if request.HasField("budget") else None,
    )


@lru_cache(maxsize=64)
def _spec_of(message: bytes) -> tuple[TrainingSpec, tuple[str, ...]]:
    """Returns a spec, and its fields whose enum number this release does not know."""
    spec = spec_pb2.TrainingSpec.FromString(message)
    return spec_from_proto(spec), tuple(unknown_enums(spec))


def preview(new: NewJob) -> jobs_pb2.Job:
    """Returns a job that was admitted and not stored, as it would be."""
    state = JobState.QUEUED if new.pinned is not None and not new.waits_for else JobState.BLOCKED
    message = jobs_pb2.Job(
        name=str(new.name),
        spec=spec_pb2.TrainingSpec.FromString(new.spec),
        state=job_state_to_proto(state),
        base=ref_to_proto(new.pinned.base if new.pinned is not None else None),
        train=ref_to_proto(new.train),
        validation=ref_to_proto(new.validation),
        creator=new.creator,
        labels=dict(new.labels),
        warnings=new.warnings,
        scheduling=scheduling_to_proto(new.scheduling),
        training_digest=new.training_digest or "",
        ttl=None if new.ttl_ms is None else durations.from_seconds(new.ttl_ms / 1000),
    )
    if new.retry is not None:
        message.faults.policy.MergeFromString(new.retry)
    if new.estimate is not None:
        message.memory_estimate.MergeFromString(new.estimate)
    if new.resource_estimate is not None:
        message.resource_estimate.MergeFromString(new.resource_estimate)
    job_budget(message, new.budget, NOTHING_SPENT, has_ended=False)
    return message


def registration_of(node: nodes_pb2.Node) -> Registration:
    """Converts what a trainer says of itself.

    Raises:
        InvalidName: its name is not one of a node.
    """
    return Registration(
        node=NodeName.parse(node.name).node,
        address=node.address,
        capacity=node.capacity.SerializeToString(),
        labels=dict(node.labels),
        generation=node.generation,
        version=node.version,
    )
