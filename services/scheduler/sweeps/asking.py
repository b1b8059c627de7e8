"""What the next trial tries: Optuna's ask and tell on a study that is made anew from our own trials each time.

Nothing of Optuna's is stored: the same plan and the same trials give the same answer. Optuna is imported at the first
call, which belongs in a thread. The same parameters are never proposed twice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.scheduler.sweeps.plan import Algorithm, Choices, Goal, Parameter, Value
from services.scheduler.sweeps.space import Point, digest_of, in_order, is_active, number, points, same

if TYPE_CHECKING:
    import optuna

REPEATS = 24
"""Proposals that were tried before are thrown away so often; then a space with an end is gone through in order."""
STARTUP_TRIALS = 10
"""Trials without an earlier one to learn from, as Optuna has it; of a small sweep a third."""
_WHEN = dt.datetime(2000, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a trial of the round is known as, by the sampler."""

    point: Point
    value: float | None = None
    """Set when it has ended well, or was stopped after a report."""
    reports: tuple[tuple[int, float], ...] = ()
    """Steps and values, in the order of the steps; of stopped ones."""
    is_pruned: bool = False
    is_open: bool = False
    """Whether it still runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that the next proposal depends on."""

    parameters: tuple[Parameter, ...]
    """The space of the round."""
    algorithm: Algorithm
    goal: Goal
    seed: int
    number: int
    """Number of the trial to come."""
    num_trials: int
    """Trials of the round."""
    told: tuple[Told, ...]
    """Trials of the round, by their numbers."""
    taken: Collection[str]
    """Digests of all parameters that were tried."""
    train_fraction: float
    first: Sequence[Point] = ()
    """Points that are tried before any is searched for."""


def propose(question: Question) -> Point | None:
    """Returns the parameters of the next trial; None when every point of the space was tried."""

    def is_new(point: Point) -> bool:
        return digest_of(point, question.train_fraction) not in question.taken

    if (begun := next(filter(is_new, question.first), None)) is not None:
        return begun
    if question.algorithm is Algorithm.GRID:
        return next(filter(is_new, points(question.parameters)), None)
    for attempt in range(REPEATS):
        if is_new(found := _ask(question, attempt)):
            return found
    try:
        return next(filter(is_new, itertools.islice(points(question.parameters), 1_000_000)), None)
    except ValueError:  # a range without end that gives the same value over and over: as good as tried
        return None


def _ask(question: Question, attempt: int) -> Point:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = _study(question, _seed(question, attempt))
        asked = study.ask()
        chosen: dict[str, Value] = {}
        for parameter in in_order(question.parameters):
            if is_active(parameter, chosen):
                chosen[parameter.field] = _suggested(asked, parameter)
        return chosen


def _seed(question: Question, attempt: int) -> int:
    text = f"{question.seed} {question.number} {attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _study(question: Question, seed: int) -> optuna.Study:
    import optuna

    sampler: optuna.samplers.BaseSampler
    if question.algorithm is Algorithm.RANDOM:
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        startup = min(STARTUP_TRIALS, max(1, question.num_trials // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction="maximize" if question.goal.is_maximised else "minimize")
    spaces = {each.field: each for each in question.parameters}
    for told in question.told:
        if (trial := _told(told, spaces)) is not None:
            study.add_trial(trial)
    return study


def _told(told: Told, spaces: dict[str, Parameter]) -> optuna.trial.FrozenTrial | None:
    from optuna.trial import TrialState, create_trial

    if not told.is_open and told.value is None:
        return None  # it failed: the sampler learns nothing from it
    known = {name: spaces[name] for name in told.point if name in spaces}
    state = TrialState.RUNNING if told.is_open else TrialState.PRUNED if told.is_pruned else TrialState.COMPLETE
    trial = create_trial(
        state=state,
        params={name: _inside(told.point[name], each) for name, each in known.items()},
        distributions={name: _distribution(each) for name, each in known.items()},
        value=None if told.is_open or told.is_pruned else told.value,
        intermediate_values=dict(told.reports) if told.is_pruned else {},
    )
    trial.datetime_start = _WHEN
    return trial


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = parameter.values
    if isinstance(values, Choices):
        return CategoricalDistribution(tuple(range(len(values.values))))
    if values.is_integer:
        step = max(1, round(values.step))
        return IntDistribution(round(values.low), round(values.high), log=values.is_log, step=step)
    return FloatDistribution(values.low, values.high, log=values.is_log, step=values.step or None)


def _inside(value: Value, parameter: Parameter) -> Any:
    """Returns a value as Optuna knows it: of choices its place among them."""
    if isinstance(parameter.values, Choices):
        return next(index for index, each in enumerate(parameter.values.values) if same(each, value))
    return value


def _suggested(asked: optuna.Trial, parameter: Parameter) -> Value:
    values, name = parameter.values, parameter.field
    if isinstance(values, Choices):
        return values.values[asked.suggest_categorical(name, tuple(range(len(values.values))))]
    if values.is_integer:
        step = max(1, round(values.step))
        return asked.suggest_int(name, round(values.low), round(values.high), log=values.is_log, step=step)
    found = asked.suggest_float(name, values.low, values.high, log=values.is_log, step=values.step or None)
    return number(values, found)


def importances(told: Sequence[Told], parameters: tuple[Parameter, ...], goal: Goal) -> dict[str, float]:
    """Returns how much each parameter matters for the value, as shares of 1 (PED-ANOVA, arXiv 2304.10255).

    Args:
        told: Trials of one round; those that have ended well are looked at, and what all of them have.
        parameters: The space of that round.
        goal: What is compared.

    Returns:
        Field -> share; empty with fewer than four such trials or with nothing to compare.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    ended = tuple(each for each in told if each.value is not None and not each.is_pruned and not each.is_open)
    if len(ended) < 4 or len({each.value for each in ended}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    question = Question(
        parameters=parameters,
        algorithm=Algorithm.RANDOM,
        goal=goal,
        seed=0,
        number=0,
        num_trials=len(ended),
        told=ended,
        taken=(),
        train_fraction=1.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(_study(question, 0), evaluator=PedAnovaImportanceEvaluator())
    return {name: float(share) for name, share in found.items()}
