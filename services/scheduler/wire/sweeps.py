"""Sweeps and trials: message -> plan, record -> message, and what a job's events say of a trial."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value as ProtoValue

from services.grpckit.errors import FieldViolation
from services.scheduler.sweeps.checking import SHOWN_MAX
from services.scheduler.sweeps.plan import (
    MEDIAN_TRIALS,
    REDUCTION_FACTOR,
    TRAINING_LOSS,
    VALIDATION_LOSS,
    Algorithm,
    Choices,
    Condition,
    Goal,
    Halving,
    Median,
    Parameter,
    Range,
    Round,
    Scalar,
    SweepPlan,
    Value,
)
from services.scheduler.sweeps.trials import Standings, Trial, TrialState, best_trial
from services.scheduler.wire.resources import ref_to_proto
from services.scheduler.wire.spec_fields import find_field
from services.scheduler.wire.times import optional_timestamp, timestamp
from tuneforge.v1 import events_pb2, spec_pb2, sweeps_pb2

REPORTS_KEPT = 64
"""Training losses of a run that are looked at: about so many, evenly spread over its steps."""
_ALGORITHMS = {
    sweeps_pb2.SEARCH_ALGORITHM_UNSPECIFIED: Algorithm.TPE,
    sweeps_pb2.SEARCH_ALGORITHM_TPE: Algorithm.TPE,
    sweeps_pb2.SEARCH_ALGORITHM_RANDOM: Algorithm.RANDOM,
    sweeps_pb2.SEARCH_ALGORITHM_GRID: Algorithm.GRID,
}
_ALGORITHM_NUMBER = {value: number for number, value in _ALGORITHMS.items()}


_SCALARS = ("number_value", "string_value", "bool_value")


def unreadable(plan: sweeps_pb2.SweepPlan) -> list[FieldViolation]:
    """Returns what `plan_from_proto` cannot keep as it came: enums of unknown numbers, and values that no field has."""
    return [*_unknown_numbers(plan), *_odd_values(plan)]


def _unknown_numbers(plan: sweeps_pb2.SweepPlan) -> list[FieldViolation]:
    known: dict[str, tuple[int, set[int]]] = {
        "plan.algorithm": (plan.algorithm, set(_ALGORITHMS)),
        "plan.goal.direction": (plan.goal.direction, set(sweeps_pb2.GoalDirection.values())),
        "plan.goal.value": (plan.goal.value, set(sweeps_pb2.GoalValue.values())),
    }
    return [
        FieldViolation(path, f"is {number}: use a value that the contract names")
        for path, (number, numbers) in known.items()
        if number not in numbers
    ]


def _odd_values(plan: sweeps_pb2.SweepPlan) -> Iterator[FieldViolation]:
    cure = "use a number, a string, true, false, or a list of those"
    for index, parameter in enumerate(plan.parameters):
        path = f"plan.parameters[{index}]"
        for place, value in enumerate(parameter.choices.values):
            if _is_odd(value):
                yield FieldViolation(f"{path}.choices.values[{place}]", f"is {_as_json(value)}: {cure}")
        for place, condition in enumerate(parameter.when):
            if odd := [each for each in condition.values if _is_odd(each)]:
                yield FieldViolation(f"{path}.when[{place}].values", f"has {_as_json(odd[0])}: {cure}")


def _is_odd(value: ProtoValue) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return any(each.WhichOneof("kind") not in _SCALARS for each in value.list_value.values)
    return kind not in _SCALARS


def _as_json(value: ProtoValue) -> str:
    """Returns a value as its caller wrote it, cut to what a person reads."""
    try:
        text = json.dumps(json_format.MessageToDict(value), ensure_ascii=False)
    except (ValueError, json_format.Error):  # it holds a number that JSON does not have
        text = "no JSON"
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 3]}..."


def plan_from_proto(plan: sweeps_pb2.SweepPlan, spec: spec_pb2.TrainingSpec) -> SweepPlan:
    """Converts a plan, defaults filled in.

    Args:
        plan: As it was asked for.
        spec: Of the sweep; says when the first value of a run is known.
    """
    goal = _goal_from_proto(plan.goal)
    first = 1 if goal.metric == TRAINING_LOSS else spec.evaluation.every_steps or 1
    rounds = [
        Round(num_trials=each.num_trials, train_fraction=each.train_fraction, narrow_to_best=each.narrow_to_best)
        for each in plan.rounds
    ]
    return SweepPlan(
        parameters=tuple(map(_parameter_from_proto, plan.parameters)),
        goal=goal,
        algorithm=_ALGORITHMS.get(plan.algorithm, Algorithm.TPE),
        rounds=tuple(rounds) or (Round(num_trials=plan.num_trials),),
        parallel_trials=plan.parallel_trials or 1,
        seed=plan.seed,
        pruning=_pruning_from_proto(plan.pruning, first),
        max_device_seconds=plan.max_device_seconds,
        max_failed_trials=plan.max_failed_trials,
        reuses_trained=plan.reuse_trained,
    )


def stored_plan(stored: bytes) -> SweepPlan:
    """Returns a plan that was checked and stored."""
    plan = plan_from_proto(sweeps_pb2.SweepPlan.FromString(stored), spec_pb2.TrainingSpec())
    return plan.with_space(tuple(map(_typed, plan.parameters)))


def _typed(parameter: Parameter) -> Parameter:
    """Returns a parameter with its values as the fields have them; in a message all numbers are of one kind."""
    field = find_field(parameter.field)
    values = parameter.values
    if isinstance(values, Range):
        values = replace(values, is_integer=field.is_integer)
    else:
        values = Choices(values=tuple(map(field.read, values.values)))
    when = tuple(
        Condition(field=each.field, values=tuple(map(find_field(each.field).read, each.values)))
        for each in parameter.when
    )
    return Parameter(field=parameter.field, values=values, when=when)


def _goal_from_proto(goal: sweeps_pb2.SweepGoal) -> Goal:
    metric = goal.metric or VALIDATION_LOSS
    maximised = goal.direction == sweeps_pb2.GOAL_DIRECTION_MAXIMIZE
    if goal.direction == sweeps_pb2.GOAL_DIRECTION_UNSPECIFIED:
        maximised = metric not in (VALIDATION_LOSS, TRAINING_LOSS)
    return Goal(metric=metric, is_maximised=maximised, is_last=goal.value == sweeps_pb2.GOAL_VALUE_LAST)


def _pruning_from_proto(pruning: sweeps_pb2.SweepPruning, first: int) -> Halving | Median | None:
    match pruning.WhichOneof("rule"):
        case "successive_halving":
            halving = pruning.successive_halving
            factor = halving.reduction_factor or REDUCTION_FACTOR
            return Halving(min_steps=halving.min_steps or first, reduction_factor=factor)
        case "median":
            median = pruning.median
            return Median(min_trials=median.min_trials or MEDIAN_TRIALS, min_steps=median.min_steps or first)
        case _:
            return None


def _parameter_from_proto(message: sweeps_pb2.SearchParameter) -> Parameter:
    values: Choices | Range
    if message.WhichOneof("values") == "range":
        found = message.range
        values = Range(low=found.low, high=found.high, step=found.step, is_log=found.log)
    else:
        values = Choices(values=tuple(map(value_from_proto, message.choices.values)))
    conditions = tuple(
        Condition(field=each.field, values=tuple(map(value_from_proto, each.values))) for each in message.when
    )
    return Parameter(field=message.field, values=values, when=conditions)


def value_from_proto(value: ProtoValue) -> Value:
    """Converts a value; of what is no scalar and no list of them nothing is left (`unreadable` tells of it)."""
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return tuple(_scalar(each) for each in value.list_value.values)
    return _scalar(value) if kind in _SCALARS else ()


def _scalar(value: ProtoValue) -> Scalar:
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case _:
            return value.string_value


def value_to_proto(value: Value) -> ProtoValue:
    """Converts a value to its message."""
    if isinstance(value, bool):
        return ProtoValue(bool_value=value)
    if isinstance(value, str):
        return ProtoValue(string_value=value)
    if isinstance(value, tuple):
        message = ProtoValue()
        message.list_value.values.extend(map(value_to_proto, value))
        return message
    return ProtoValue(number_value=value)


def plan_to_proto(plan: SweepPlan) -> sweeps_pb2.SweepPlan:
    """Converts a plan to its message, from which the same plan comes back."""
    goal = plan.goal
    message = sweeps_pb2.SweepPlan(
        parameters=map(_parameter_to_proto, plan.parameters),
        goal=sweeps_pb2.SweepGoal(
            metric=goal.metric,
            direction=sweeps_pb2.GOAL_DIRECTION_MAXIMIZE if goal.is_maximised else sweeps_pb2.GOAL_DIRECTION_MINIMIZE,
            value=sweeps_pb2.GOAL_VALUE_LAST if goal.is_last else sweeps_pb2.GOAL_VALUE_BEST,
        ),
        algorithm=_ALGORITHM_NUMBER[plan.algorithm],
        num_trials=plan.num_trials,
        parallel_trials=plan.parallel_trials,
        seed=plan.seed,
        max_device_seconds=plan.max_device_seconds,
        max_failed_trials=plan.max_failed_trials,
        reuse_trained=plan.reuses_trained,
        rounds=[
            sweeps_pb2.SweepRound(
                num_trials=each.num_trials, train_fraction=each.train_fraction, narrow_to_best=each.narrow_to_best
            )
            for each in plan.rounds
        ],
    )
    match plan.pruning:
        case Halving(min_steps=steps, reduction_factor=factor):
            message.pruning.successive_halving.min_steps = steps
            message.pruning.successive_halving.reduction_factor = factor
        case Median(min_trials=trials, min_steps=steps):
            message.pruning.median.min_trials = trials
            message.pruning.median.min_steps = steps
    return message


def _parameter_to_proto(parameter: Parameter) -> sweeps_pb2.SearchParameter:
    values = parameter.values
    message = sweeps_pb2.SearchParameter(field=parameter.field)
    if isinstance(values, Choices):
        message.choices.values.extend(map(value_to_proto, values.values))
    else:
        message.range.CopyFrom(
            sweeps_pb2.SearchRange(low=values.low, high=values.high, step=values.step, log=values.is_log)
        )
    for condition in parameter.when:
        message.when.add(field=condition.field, values=map(value_to_proto, condition.values))
    return message


def sweep_to_proto(seen: Standings) -> sweeps_pb2.Sweep:
    """Converts a sweep with its trials to its resource."""
    sweep = seen.sweep
    best = best_trial(seen.trials, sweep.plan.goal)
    states = [each.state for each in seen.trials]
    message = sweeps_pb2.Sweep(
        name=str(sweep.name),
        spec=spec_pb2.TrainingSpec.FromString(sweep.spec),
        plan=sweeps_pb2.SweepPlan.FromString(sweep.plan_message),
        state=sweeps_pb2.SweepState.Value(f"SWEEP_STATE_{sweep.state}"),
        reason=sweep.reason,
        message=sweep.message,
        combinations=sweep.combinations,
        cost=sweeps_pb2.SweepCost.FromString(sweep.cost),
        round=min(sweep.rounds_done + 1, len(sweep.plan.rounds)),
        counts=sweeps_pb2.TrialCounts(**{str(state).lower(): states.count(state) for state in TrialState}),
        best=trial_to_proto(best) if best is not None else None,
        device_seconds=seen.device_seconds,
        create_time=timestamp(sweep.create_ms),
        end_time=optional_timestamp(sweep.end_ms),
        creator=sweep.creator,
        labels=dict(sweep.labels),
        revision=sweep.revision,
    )
    if sweep.failure is not None:
        message.failure.MergeFromString(sweep.failure)
    return message


def plan_bytes(plan: SweepPlan) -> bytes:
    """Returns a plan as it is stored."""
    return plan_to_proto(plan).SerializeToString(deterministic=True)


def sweep_bytes(seen: Standings) -> bytes:
    """Returns a sweep's resource as it is kept with a request id."""
    return sweep_to_proto(seen).SerializeToString()


def trial_to_proto(trial: Trial, *, with_reports: bool = False) -> sweeps_pb2.Trial:
    """Converts a trial to its resource."""
    reports = trial.reports if with_reports else ()
    return sweeps_pb2.Trial(
        name=str(trial.name),
        round=trial.round,
        parameters={name: value_to_proto(value) for name, value in trial.point.items()},
        digest=trial.digest,
        state=sweeps_pb2.TrialState.Value(f"TRIAL_STATE_{trial.state}"),
        message=trial.message,
        job=str(trial.job_name) if trial.job_name is not None else "",
        value=trial.value,
        reports=[sweeps_pb2.TrialReport(step=step, value=value) for step, value in reports],
        step=trial.step,
        total_steps=trial.total_steps,
        stop_step=trial.stop_step,
        device_seconds=trial.device_seconds,
        version=ref_to_proto(trial.published) if trial.state is TrialState.SUCCEEDED else None,
        create_time=timestamp(trial.create_ms),
        end_time=optional_timestamp(trial.end_ms),
        revision=trial.revision,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReader:
    """Reads the values of one metric out of a job's event log."""

    metric: str

    def read(self, payloads: Iterable[bytes], after_seq: int) -> tuple[dict[int, float], int]:
        """Returns values by step, and the number of the newest event read.

        Args:
            payloads: Serialised `EventBatch`es in order.
            after_seq: Events up to this one were read before.
        """
        found: dict[int, float] = {}
        for payload in payloads:
            for event in events_pb2.EventBatch.FromString(payload).events:
                if event.job_seq > after_seq:
                    after_seq = event.job_seq
                    found.update(self._values(event))
        return found, after_seq

    def _values(self, event: events_pb2.Event) -> dict[int, float]:
        match event.WhichOneof("payload"):
            case "evaluation" if self.metric == VALIDATION_LOSS:
                return {event.evaluation.step: event.evaluation.loss}
            case "task" if event.task.is_validation and self.metric in event.task.values:
                return {event.task.step: event.task.values[self.metric]}
            case "step" if self.metric == TRAINING_LOSS:
                step, total = event.step.step, event.step.total_steps
                is_kept = step in (1, total) or step % max(1, total // REPORTS_KEPT) == 0
                return {step: event.step.loss} if is_kept else {}
            case _:
                return {}
