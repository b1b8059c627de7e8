"""What is wrong with a sweep: all of it at once, each with its path in the request. Knows no message.

Each value of the space is put into the spec by itself, beside one that fulfils the conditions of its parameter, and the
spec's own rules are asked about it: a trial that could not begin is found before the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from services.grpckit.errors import FieldViolation
from services.scheduler.sweeps.plan import (
    TRAINING_LOSS,
    VALIDATION_LOSS,
    Algorithm,
    Choices,
    Condition,
    Halving,
    Parameter,
    Range,
    SweepPlan,
    Value,
)
from services.scheduler.sweeps.space import Point, count, in_order, values_of
from tuneforge.specs.spec import PreferenceTask, RewardModelTask, TrainingSpec

PARAMETERS_MAX = 64
CHOICES_MAX = 1000
TRIALS_MAX = 10_000
PARALLEL_MAX = 1000
ROUNDS_MAX = 8
FACTOR_RANGE = (2, 100)
SHARE = "data.train_fraction"
SHOWN_MAX = 60
"""Characters of a value that a person is shown."""
_END_VALUES = 64
"""Values of a range with steps are looked at one by one up to so many; of others both ends."""


class KnownField(Protocol):
    """A field of the spec."""

    @property
    def is_integer(self) -> bool:
        """Whether it takes whole numbers only."""

    @property
    def is_number(self) -> bool:
        """Whether it takes one number."""

    def read(self, value: Value) -> Value:
        """Returns a value as the field has it; raises ValueError with what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRules:
    """What a sweep's spec says and allows."""

    spec: TrainingSpec
    find: Callable[[str], KnownField]
    """Returns a field by its path; raises ValueError with what is wrong with the path."""
    problems_with: Callable[[Point], dict[str, str]]
    """What the spec's own rules say with some values in it: field -> problem."""


def checked(plan: SweepPlan, num_trials: int, rules: SpecRules) -> tuple[SweepPlan, list[FieldViolation]]:
    """Returns a plan with its values as their fields have them, and everything that is wrong with it.

    Args:
        plan: As it was asked for.
        num_trials: `SweepPlan.num_trials` of the request.
        rules: Of the spec.
    """
    parameters: list[Parameter] = []
    found: list[FieldViolation] = []
    if not 1 <= len(plan.parameters) <= PARAMETERS_MAX:
        n = len(plan.parameters)
        found.append(FieldViolation("plan.parameters", f"has {n} entries: name 1 to {PARAMETERS_MAX} fields to search"))
    for index, parameter in enumerate(plan.parameters):
        read, problems = _parameter(f"plan.parameters[{index}]", parameter, plan, rules)
        parameters.append(read)
        found += problems
    plan = plan.with_space(tuple(replace(each, when=_read_conditions(each, rules)) for each in parameters))
    found += _conditions(plan.parameters)
    found += _limits(plan, num_trials)
    found += _goal(plan, rules.spec)
    found += _values(plan.parameters, rules, found)
    return plan, found


def _read_conditions(parameter: Parameter, rules: SpecRules) -> tuple[Condition, ...]:
    """Returns the conditions with their values as the fields have them; one that cannot be read stays as it is."""

    def read(field: str, value: Value) -> Value:
        try:
            return rules.find(field).read(value)
        except ValueError:
            return value

    return tuple(
        Condition(field=each.field, values=tuple(read(each.field, value) for value in each.values))
        for each in parameter.when
    )


def _parameter(
    path: str, parameter: Parameter, plan: SweepPlan, rules: SpecRules
) -> tuple[Parameter, list[FieldViolation]]:
    fields = [each.field for each in plan.parameters]
    if fields.count(parameter.field) > 1:
        return parameter, [FieldViolation(f"{path}.field", f"is {parameter.field!r} twice: name each field once")]
    if parameter.field == SHARE and any(each.train_fraction for each in plan.rounds):
        problem = f"is {SHARE!r}, which the rounds of this sweep set: leave out one of them"
        return parameter, [FieldViolation(f"{path}.field", problem)]
    try:
        field = rules.find(parameter.field)
    except ValueError as error:
        return parameter, [FieldViolation(f"{path}.field", f"{parameter.field!r} {error}")]
    if isinstance(parameter.values, Choices):
        values, problems = _choices(f"{path}.choices.values", parameter.values.values, field)
        return Parameter(field=parameter.field, values=Choices(values=values), when=parameter.when), problems
    taken = Range(
        low=parameter.values.low,
        high=parameter.values.high,
        step=parameter.values.step,
        is_log=parameter.values.is_log,
        is_integer=field.is_integer,
    )
    problems = list(_range(f"{path}.range", parameter.field, taken, field, plan.algorithm))
    return Parameter(field=parameter.field, values=taken, when=parameter.when), problems


def _choices(path: str, values: tuple[Value, ...], field: KnownField) -> tuple[tuple[Value, ...], list[FieldViolation]]:
    if not 1 <= len(values) <= CHOICES_MAX:
        return values, [FieldViolation(path, f"has {len(values)} entries: list 1 to {CHOICES_MAX} values")]
    read: list[Value] = []
    found: list[FieldViolation] = []
    for index, value in enumerate(values):
        try:
            known = field.read(value)
        except ValueError as error:
            found.append(FieldViolation(f"{path}[{index}]", f"is {shown(value)}: use {error}"))
            continue
        if known in read:
            found.append(FieldViolation(f"{path}[{index}]", f"is {shown(value)} again: list each value once"))
        read.append(known)
    return tuple(read), found


def _range(path: str, name: str, values: Range, field: KnownField, algorithm: Algorithm) -> Iterator[FieldViolation]:
    if not field.is_number:
        yield FieldViolation(path, f"is for numbers, and `{name}` takes something else: list its values as `choices`")
        return
    numbers = {"low": values.low, "high": values.high, "step": values.step}
    for key, value in numbers.items():
        if not math.isfinite(value):
            yield FieldViolation(f"{path}.{key}", f"is {value}: use a finite number")
        elif values.is_integer and value != round(value):
            yield FieldViolation(f"{path}.{key}", f"is {value:g}: `{name}` takes whole numbers")
        elif values.is_integer and key != "step" and (problem := _unread(field, value)):
            yield FieldViolation(f"{path}.{key}", f"is {value:g}: use {problem}")
    if not all(map(math.isfinite, numbers.values())):
        return
    yield from _order(path, values)
    if algorithm is Algorithm.GRID and values_of(values) is None and values.step >= 0:
        yield FieldViolation(f"{path}.step", "is 0: a grid needs a step here, or `choices`")


def _unread(field: KnownField, value: float) -> str:
    """Returns what a field takes that does not take a value; empty: it takes it."""
    try:
        field.read(value)
    except ValueError as error:
        return str(error)
    return ""


def _order(path: str, values: Range) -> Iterator[FieldViolation]:
    """The numbers of a range beside each other."""
    if values.low > values.high:
        yield FieldViolation(f"{path}.high", f"is {values.high:g}, below `low` = {values.low:g}: swap them")
    if values.step < 0:
        yield FieldViolation(f"{path}.step", f"is {values.step:g}: use more than 0, or 0 for any number")
    if values.is_log and values.low <= 0:
        yield FieldViolation(f"{path}.low", f"is {values.low:g}: with `log` use more than 0")
    if values.is_log and values.step:
        yield FieldViolation(f"{path}.step", f"is {values.step:g} beside `log`: leave one of them out")


def _key(value: Value) -> tuple[bool, Value]:
    """Returns what two values have in common when they are the same; True and 1 are not."""
    return isinstance(value, bool), value


def _conditions(parameters: Sequence[Parameter]) -> Iterator[FieldViolation]:
    known = {each.field: each for each in parameters}
    allowed = {
        each.field: set(map(_key, each.values.values)) for each in parameters if isinstance(each.values, Choices)
    }
    for index, parameter in enumerate(parameters):
        for place, condition in enumerate(parameter.when):
            path = f"plan.parameters[{index}].when[{place}]"
            parent = known.get(condition.field)
            if parent is None or not isinstance(parent.values, Choices):
                yield FieldViolation(f"{path}.field", f"is {condition.field!r}: name a parameter with `choices`")
            elif not condition.values:
                yield FieldViolation(f"{path}.values", f"is empty: list values of `{condition.field}`")
            elif odd := [each for each in condition.values if _key(each) not in allowed[parent.field]]:
                yield FieldViolation(f"{path}.values", f"has {shown(odd[0])}, no value of `{condition.field}`")
    try:
        in_order(parameters)
    except ValueError as error:
        yield FieldViolation("plan.parameters", f"has conditions that wait for each other: {error}")


def _limits(plan: SweepPlan, num_trials: int) -> Iterator[FieldViolation]:
    yield from _rounds(plan, num_trials)
    if not 1 <= plan.parallel_trials <= PARALLEL_MAX:
        yield FieldViolation("plan.parallel_trials", f"is {plan.parallel_trials}: use 1 to {PARALLEL_MAX}, or 0 for 1")
    if plan.max_failed_trials < 0:
        yield FieldViolation("plan.max_failed_trials", f"is {plan.max_failed_trials}: use 1 or more, or 0 for no limit")
    if not math.isfinite(plan.max_device_seconds) or plan.max_device_seconds < 0:
        found = plan.max_device_seconds
        yield FieldViolation("plan.max_device_seconds", f"is {found}: use a number > 0, or 0 for no limit")
    low, high = FACTOR_RANGE
    if isinstance(plan.pruning, Halving) and not low <= plan.pruning.reduction_factor <= high:
        found = plan.pruning.reduction_factor
        path = "plan.pruning.successive_halving.reduction_factor"
        yield FieldViolation(path, f"is {found}: use {low} to {high}, or 0 for the default")


def _rounds(plan: SweepPlan, num_trials: int) -> Iterator[FieldViolation]:
    if len(plan.rounds) > ROUNDS_MAX:
        yield FieldViolation("plan.rounds", f"has {len(plan.rounds)} entries: use at most {ROUNDS_MAX}")
    is_given = len(plan.rounds) != 1 or plan.rounds[0].num_trials != num_trials
    for index, each in enumerate(plan.rounds):
        path = f"plan.rounds[{index}]"
        if not 1 <= each.num_trials <= TRIALS_MAX:
            field = f"{path}.num_trials" if is_given else "plan.num_trials"
            yield FieldViolation(field, f"is {each.num_trials}: use 1 to {TRIALS_MAX}")
        if not 0 <= each.train_fraction <= 1:
            yield FieldViolation(f"{path}.train_fraction", f"is {each.train_fraction}: use more than 0 and at most 1")
        if each.narrow_to_best < 0 or (each.narrow_to_best and not index):
            problem = "use 1 or more, or 0 for the whole space" if index else "the first round has none before it"
            yield FieldViolation(f"{path}.narrow_to_best", f"is {each.narrow_to_best}: {problem}")
    if is_given and num_trials not in (0, plan.num_trials):
        problem = f"is {num_trials}, and the rounds have {plan.num_trials} together: leave it out"
        yield FieldViolation("plan.num_trials", problem)


def _goal(plan: SweepPlan, spec: TrainingSpec) -> Iterator[FieldViolation]:
    metric = plan.goal.metric
    is_pairwise = isinstance(spec.task, PreferenceTask | RewardModelTask)
    figures = ("rewards_chosen", "rewards_rejected", "rewards_margin", "rewards_accuracy") if is_pairwise else ()
    if metric not in (VALIDATION_LOSS, TRAINING_LOSS, *figures):
        known = ", ".join((VALIDATION_LOSS, TRAINING_LOSS, *figures))
        yield FieldViolation("plan.goal.metric", f"is {metric!r}: this task measures {known}")
        return
    if metric == TRAINING_LOSS:
        return
    if spec.data.validation is None:
        problem = f"is `{metric}`, which needs rows for validation: set `data.validation`, or compare `training_loss`"
        yield FieldViolation("plan.goal.metric", problem)
    elif plan.pruning is not None and not spec.evaluation.every_steps:
        problem = f"needs `{metric}` during the runs: set `evaluation.every_steps` in the spec"
        yield FieldViolation("plan.pruning", problem)


def _values(
    parameters: Sequence[Parameter], rules: SpecRules, found: Sequence[FieldViolation]
) -> Iterator[FieldViolation]:
    """What the spec's rules say to each value beside what its conditions want, where nothing else is wrong with it."""
    places = [each.field for each in found]
    if "plan.parameters" in places:  # too many, or conditions that wait for each other
        return
    wrong = {
        each.field
        for index, each in enumerate(parameters)
        if any(place.startswith(f"plan.parameters[{index}].") for place in places)
    }
    known = {each.field: each for each in parameters}
    for index, parameter in enumerate(parameters):
        if parameter.field in wrong or not wrong.isdisjoint(_parents(parameter, known)):
            continue
        beside = _wanted(parameter, known)
        path = f"plan.parameters[{index}]"
        for place, value in _looked_at(parameter.values):
            said = rules.problems_with({**beside, parameter.field: value})
            for field, problem in said.items():
                description = f"gives the spec {parameter.field} = {shown(value)}, where {field} {problem}"
                yield FieldViolation(f"{path}.{place}", description)


def _parents(parameter: Parameter, known: dict[str, Parameter]) -> set[str]:
    """Returns the fields that a parameter's conditions name, and those that theirs do."""
    named = {condition.field for condition in parameter.when}
    return named.union(*(_parents(known[each], known) for each in named if each in known))


def _wanted(parameter: Parameter, known: dict[str, Parameter]) -> dict[str, Value]:
    wanted: dict[str, Value] = {}
    for condition in parameter.when:
        wanted |= _wanted(known[condition.field], known)
        wanted[condition.field] = condition.values[0]
    return wanted


def _looked_at(values: Choices | Range) -> Iterator[tuple[str, Value]]:
    if isinstance(values, Choices):
        yield from ((f"choices.values[{index}]", value) for index, value in enumerate(values.values))
        return
    stepped = values_of(values)
    ends: list[Value] = [values.low, values.high]
    if values.is_integer:
        ends = [round(values.low), round(values.high)]
    yield "range.low", ends[0]
    if values.high != values.low:
        yield "range.high", ends[1]
    if stepped is not None and len(stepped) <= _END_VALUES:
        yield from (("range", stepped[index]) for index in range(1, len(stepped) - 1))


def combinations(plan: SweepPlan) -> int:
    """Returns the points of a checked plan's space; 0: there is no end of them."""
    return count(plan.parameters) or 0


def shown(value: object) -> str:
    """Returns a value as it is shown to a person."""
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 3]}..."
