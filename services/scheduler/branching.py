"""Jobs that begin from a checkpoint of another one: what they take over from it, and what they may change."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from google.protobuf.message import Message
from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, invalid_fields
from services.scheduler.admission import PREFIX, Draft
from services.scheduler.lifecycle.training_digest import branched_digest
from services.scheduler.records import Job, NewJob, Origin
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import jobs as job_store
from services.scheduler.wire.specs import spec_from_bytes, spec_of_run
from tuneforge.names import CheckpointName, InvalidName
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import spec_pb2

_FREE = ("evaluation", "checkpointing", "guards", "resources", "output_model")
"""Parts of a spec that say nothing of the state in a checkpoint."""
_BOUND = ("optimizer", "rows_per_step")
"""Parts of `optimization` that a state cannot go on without."""
_FIELD = "from_checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A draft that begins from a checkpoint."""

    draft: Draft
    """With all that it leaves out taken from the job of the checkpoint."""
    parent: TrainingSpec
    """Spec of that job's run."""
    origin: Origin
    step: int
    """Step that the checkpoint was saved after."""


def begin(connection: Connection, draft: Draft) -> Branch:
    """Finds the checkpoint that a draft begins from and completes the draft from its job.

    Raises:
        ServiceError: INVALID_FIELD: there is no such checkpoint in the blob store.
    """
    try:
        name = CheckpointName.parse(draft.from_checkpoint)
    except InvalidName as error:
        raise _wrong(f"is not a checkpoint: {error}") from None
    if name.project != draft.project:
        raise _wrong(f"is {str(name)!r}: use a checkpoint of the same project, {draft.project}")
    job, found = job_store.find(connection, name.parent), checkpoint_store.find_by_name(connection, name)
    if job is None or found is None:
        raise _wrong(f"is {str(name)!r}: there is no such checkpoint; list those of the job")
    if found.manifest is None:
        raise _wrong(f"is {str(name)!r}: it was not copied to the blob store; use one that was")
    spec = spec_of_run(job)
    return Branch(
        draft=replace(draft, spec=spec_from_proto(_over(spec, spec_pb2.TrainingSpec.FromString(draft.message)))),
        parent=spec_from_proto(spec),
        # A lower loss that came after the checkpoint says nothing of what the state in it knows.
        origin=Origin(
            name=str(name), manifest=found.manifest, best_step=job.best_step if job.best_step <= name.step else 0
        ),
        step=name.step,
    )


def checked(new: NewJob, branch: Branch) -> NewJob:
    """Returns an admitted job with where it begins.

    Raises:
        ServiceError: INVALID_FIELD: it changes what the checkpoint's state depends on; all such fields are listed.
    """
    spec = spec_from_bytes(new.spec)
    problems = [
        FieldViolation(
            PREFIX + field, f"is not as in the job of {branch.origin.name}: leave it out, its state needs it"
        )
        for field in _changed(spec, branch.parent)
    ]
    most = spec.optimization.max_steps
    if most and most < branch.step:  # with as many steps nothing is trained, and the result is published once more
        description = f"is {most}: the checkpoint is of step {branch.step}, use as many or more"
        problems.append(FieldViolation(f"{PREFIX}optimization.max_steps", description))
    if problems:
        raise invalid_fields(problems)
    digest = new.training_digest and branched_digest(new.training_digest, branch.origin.manifest)
    return replace(new, origin=branch.origin, training_digest=digest)


def require_there(connection: Connection, origin: Origin) -> None:
    """Refuses a checkpoint that was dropped since it was found.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    found = checkpoint_store.find_by_name(connection, CheckpointName.parse(origin.name))
    if found is None or found.manifest != origin.manifest:
        raise _wrong(f"is {origin.name!r}, which was dropped for newer ones at this moment; use one of those")


def origin_of(job: Job, step: int, manifest: bytes) -> Origin:
    """Returns a job's checkpoint as what another job begins from."""
    return Origin(name=str(job.name.checkpoint(step)), manifest=manifest)


def _wrong(description: str) -> Exception:
    return invalid_fields([FieldViolation(_FIELD, description)])


def _over(spec: spec_pb2.TrainingSpec, changes: spec_pb2.TrainingSpec) -> spec_pb2.TrainingSpec:
    """Returns a spec with changes on top of it; a list that is given takes the place of the one that was."""
    merged = spec_pb2.TrainingSpec()
    merged.CopyFrom(spec)
    _clear_lists(merged, changes)
    merged.MergeFrom(changes)
    return merged


def _clear_lists(target: Message, changes: Message) -> None:
    for field, value in changes.ListFields():
        if field.is_repeated:
            target.ClearField(field.name)
        elif field.message_type is not None and target.HasField(field.name):
            _clear_lists(getattr(target, field.name), value)


def _changed(spec: TrainingSpec, parent: TrainingSpec) -> list[str]:
    """Returns the fields that differ and may not."""
    wrong = [
        field.name
        for field in fields(spec)
        if field.name not in {*_FREE, "optimization"} and getattr(spec, field.name) != getattr(parent, field.name)
    ]
    return wrong + [
        f"optimization.{name}"
        for name in _BOUND
        if getattr(spec.optimization, name) != getattr(parent.optimization, name)
    ]
