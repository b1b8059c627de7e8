"""Requests that make sweeps and trials: message -> draft, and what a sweep will cost."""

from __future__ import annotations

from services.scheduler.admission import Draft
from services.scheduler.records import NewJob
from services.scheduler.sweeps.checking import SpecRules
from services.scheduler.sweeps.drafts import SweepDraft
from services.scheduler.sweeps.plan import SweepPlan
from services.scheduler.sweeps.space import Point
from services.scheduler.sweeps.trials import NewSweep, Sweep
from services.scheduler.wire.spec_fields import with_values
from services.scheduler.wire.sweep_rules import rules_of
from services.scheduler.wire.sweeps import plan_from_proto, unreadable
from tuneforge.names import ModelName, SweepName
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.wire import spec_from_proto, unknown_enums
from tuneforge.v1 import jobs_pb2, spec_pb2, sweeps_pb2


def rules_for(message: bytes, architecture: Architecture | None) -> SpecRules:
    """Returns the rules of a serialised spec."""
    return rules_of(spec_pb2.TrainingSpec.FromString(message), architecture)


def pinned_spec(message: bytes, admitted: NewJob, name: SweepName) -> bytes:
    """Returns what all trials have in common: the spec as it came, with its names pinned and a model for the results.

    Defaults are left out: what a trial changes may change them.

    Args:
        message: The spec as it came, serialised.
        admitted: A job with this spec.
        name: Of the sweep.
    """
    spec = spec_pb2.TrainingSpec.FromString(message)
    if admitted.pinned is not None:
        spec.base.model = admitted.pinned.base.version
    spec.data.train.dataset = admitted.train.version
    if admitted.validation is not None:
        spec.data.validation.dataset = admitted.validation.version
    if not spec.output.model:
        spec.output.model = str(ModelName(name.project, name.sweep))
    return spec.SerializeToString(deterministic=True)


def sweep_draft(request: sweeps_pb2.CreateSweepRequest, project: str, actor: str) -> SweepDraft:
    """Converts what a caller asks for."""
    job = Draft(
        project=project,
        job_id="",
        spec=spec_from_proto(request.spec),
        unknown_enums=tuple(unknown_enums(request.spec)),
        labels={},
        creator=actor,
        message=request.spec.SerializeToString(),
    )
    return SweepDraft(
        project=project,
        sweep_id=request.sweep_id,
        job=job,
        plan=plan_from_proto(request.plan, request.spec),
        num_trials=request.plan.num_trials,
        problems=tuple(unreadable(request.plan)),
        labels=dict(request.labels),
        creator=actor,
    )


def sweep_preview(new: NewSweep) -> sweeps_pb2.Sweep:
    """Returns a sweep that was checked and not stored, as it would be."""
    return sweeps_pb2.Sweep(
        name=str(new.name),
        spec=spec_pb2.TrainingSpec.FromString(new.spec),
        plan=sweeps_pb2.SweepPlan.FromString(new.plan),
        state=sweeps_pb2.SWEEP_STATE_RUNNING,
        combinations=new.combinations,
        cost=sweeps_pb2.SweepCost.FromString(new.cost),
        round=1,
        creator=new.creator,
        labels=dict(new.labels),
    )


def trial_draft(sweep: Sweep, point: Point, train_fraction: float, job_id: str) -> Draft:
    """Returns the job of a trial, as a caller would ask for it."""
    spec = with_values(spec_pb2.TrainingSpec.FromString(sweep.spec), point)
    if train_fraction:
        spec.data.train_fraction = train_fraction
    return Draft(
        project=sweep.name.project,
        job_id=job_id,
        spec=spec_from_proto(spec),
        unknown_enums=(),
        labels=sweep.labels,
        creator=sweep.creator,
        message=spec.SerializeToString(deterministic=True),
    )


def cost_of(plan: SweepPlan, points: int, admitted: NewJob) -> bytes:
    """Returns what a sweep takes when each trial runs to its end, serialised.

    Args:
        plan: Checked.
        points: Of its space; 0: no end of them.
        admitted: A job with its spec as it stands, whose prediction stands for each trial's.
    """
    spec = spec_pb2.TrainingSpec.FromString(admitted.spec)
    one = jobs_pb2.ResourceEstimate.FromString(admitted.resource_estimate or b"").device_seconds
    whole = spec.data.train_fraction or 1.0
    is_by_rows = spec.optimization.WhichOneof("length") != "max_steps"  # else a run is as long on fewer rows
    cost = sweeps_pb2.SweepCost()
    for each in plan.rounds:
        trials = min(each.num_trials, points) if points and not each.narrow_to_best else each.num_trials
        share = each.train_fraction or whole
        factor = trials * (share / whole if is_by_rows else 1.0)
        cost.rounds.add(trials=trials, train_fraction=share, device_seconds=one.expected * factor)
        cost.trials += trials
        cost.data_shares += trials * share
        cost.device_seconds += one.expected * factor
        cost.lowest_device_seconds += one.lowest * factor
        cost.highest_device_seconds += one.highest * factor
    return cost.SerializeToString()
