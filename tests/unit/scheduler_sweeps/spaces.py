"""Spaces, plans and rows of sweeps for tests."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from services.scheduler.jobs import JobState
from services.scheduler.sweeps.checking import SpecRules, checked, combinations
from services.scheduler.sweeps.plan import Choices, Condition, Parameter, Range, Round, SweepPlan, Value
from services.scheduler.sweeps.space import Point, digest_of
from services.scheduler.sweeps.trials import Standings, Sweep, SweepState, Trial, TrialState
from services.scheduler.wire.sweep_rules import rules_of
from services.scheduler.wire.sweeps import plan_from_proto
from tuneforge.names import JobName, SweepName
from tuneforge.v1 import spec_pb2, sweeps_pb2

SWEEP = SweepName("p", "s")


def choices(field: str, *values: Value, when: tuple[Condition, ...] = ()) -> Parameter:
    """Returns a parameter with choices."""
    return Parameter(field=field, values=Choices(values=values), when=when)


def ranged(field: str, low: float, high: float, **changes: Any) -> Parameter:
    """Returns a parameter with a range."""
    return Parameter(field=field, values=Range(low=low, high=high, **changes))


def preference_spec(**changes: Any) -> spec_pb2.TrainingSpec:
    """Returns a spec that learns from pairs, with all weights, and measures a validation loss."""
    spec = spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(model="projects/p/models/m/versions/1"),
        preference=spec_pb2.PreferenceTask(),
        full=spec_pb2.FullMethod(),
        data=spec_pb2.DataConfig(
            train=spec_pb2.DataSource(dataset="projects/p/datasets/d/versions/1"),
            validation=spec_pb2.DataSource(dataset="projects/p/datasets/d/versions/1"),
        ),
        evaluation=spec_pb2.Evaluation(every_steps=5),
    )
    spec.MergeFrom(spec_pb2.TrainingSpec(**changes))
    return spec


def problems(plan: sweeps_pb2.SweepPlan, spec: spec_pb2.TrainingSpec | None = None) -> dict[str, str]:
    """Returns what is wrong with a plan: path -> sentence."""
    return {each.field: each.description for each in looked_at(plan, spec)[1]}


def looked_at(plan: sweeps_pb2.SweepPlan, spec: spec_pb2.TrainingSpec | None = None) -> Any:
    """Returns a checked plan and what is wrong with it."""
    spec = spec or preference_spec()
    rules: SpecRules = rules_of(spec, None)
    return checked(plan_from_proto(plan, spec), plan.num_trials, rules)


def plan_of(space: dict[str, Any], num_trials: int = 10, **fields: Any) -> sweeps_pb2.SweepPlan:
    """Returns the message of a plan over a space: field -> list of values, or the fields of a range."""
    plan = sweeps_pb2.SweepPlan(num_trials=num_trials, **fields)
    for field, values in space.items():
        parameter = plan.parameters.add(field=field)
        if isinstance(values, dict):
            parameter.range.CopyFrom(sweeps_pb2.SearchRange(**values))
        else:
            parameter.choices.SetInParent()
            for value in values:
                json_format.ParseDict(value, parameter.choices.values.add())
    return plan


def number_of_points(plan: sweeps_pb2.SweepPlan) -> int:
    """Returns the points of a plan's space; the plan must be right."""
    read, wrong = looked_at(plan)
    assert wrong == []
    return combinations(read)


def standings(plan: SweepPlan, trials: tuple[Trial, ...] = (), **changes: Any) -> Standings:
    """Returns a sweep with its trials."""
    fields: dict[str, Any] = {
        "number": 1,
        "name": SWEEP,
        "state": SweepState.RUNNING,
        "reason": "",
        "message": "",
        "creator": "local",
        "labels": {},
        "spec": b"",
        "plan_message": b"",
        "plan": plan,
        "combinations": 0,
        "cost": b"",
        "rounds_done": 0,
        "failure": None,
        "revision": 1,
        "create_ms": 0,
        "end_ms": None,
    }
    return Standings(sweep=Sweep(**(fields | changes)), trials=trials)


def trial(number: int, point: Point, value: float | None = None, **changes: Any) -> Trial:
    """Returns a trial: with a value one that has succeeded, else one that runs."""
    state = TrialState.RUNNING if value is None else TrialState.SUCCEEDED
    fields: dict[str, Any] = {
        "number": number,
        "name": SWEEP.trial(number),
        "round": 1,
        "point": point,
        "digest": digest_of(point, 0.0),
        "state": state,
        "message": "",
        "job": number,
        "job_name": JobName("p", f"s-{number}"),
        "job_state": JobState.RUNNING if value is None else JobState.SUCCEEDED,
        "value": value,
    }
    return Trial(**(fields | changes))


def small_plan(*parameters: Parameter, num_trials: int = 6, **changes: Any) -> SweepPlan:
    """Returns a plan of one round."""
    fields: dict[str, Any] = {"parameters": parameters, "rounds": (Round(num_trials=num_trials),)}
    return SweepPlan(**(fields | changes))
