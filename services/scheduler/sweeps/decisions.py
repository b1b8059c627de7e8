"""What is due in a sweep: a pure function from its rows and its jobs' states to actions, each with its reason.

Nothing is remembered between two decisions, so a sweep goes on from wherever a crash left it. `controller.py` observes
and acts; a trial and its job come into being in one transaction there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from services.scheduler.jobs import HELD, WAITING, Failure, JobState
from services.scheduler.sweeps.asking import Question, Told
from services.scheduler.sweeps.plan import Parameter, Round, SweepPlan
from services.scheduler.sweeps.pruning import Standing, judge
from services.scheduler.sweeps.space import narrowed
from services.scheduler.sweeps.trials import (
    ENDED_SWEEP,
    Standings,
    SweepState,
    Trial,
    TrialState,
    best_of,
    best_trial,
)

STOPPABLE = (WAITING | HELD) - {JobState.CANCELLING}
"""States of a job in which it can be cancelled and is not being."""
PAUSABLE = frozenset({JobState.QUEUED, JobState.STARTING, JobState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(Action):
    """A trial has ended."""

    trial: Trial
    state: TrialState
    value: float | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Action):
    """A trial's job is to be cancelled."""

    trial: Trial
    reason: str
    """Stable word for the job's log."""
    message: str
    step: int = 0
    """With PRUNED: where it was found not worth its device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote(Action):
    """A trial was let past further rungs."""

    trial: Trial
    rungs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTrial(Action):
    """A trial's job is to be paused with its sweep."""

    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeTrial(Action):
    """A trial's job is to go on with its sweep."""

    trial: Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose(Action):
    """A new trial is to be begun."""

    round: int
    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRound(Action):
    """A round takes no more trials."""

    round: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wind(Action):
    """The sweep is to be stopped: its open trials are cancelled, then it fails."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Action):
    """The sweep has ended."""

    state: SweepState
    reason: str
    message: str
    failure: Failure | None = None


def decide(seen: Standings) -> list[Action]:
    """Returns what is due now; after it was done, the next look shows what follows from it."""
    if seen.sweep.state in ENDED_SWEEP:
        return []
    settled: list[Action] = [_settled(seen, trial) for trial in seen.open_ones if trial.is_job_over]
    if settled:
        return settled  # all else depends on it
    match seen.sweep.state:
        case SweepState.STOPPING:
            return list(_stopping(seen))
        case SweepState.PAUSED:
            return [
                PauseTrial(trial=trial)
                for trial in seen.open_ones
                if not trial.is_paused and trial.job_state in PAUSABLE
            ]
        case _:
            return list(_running(seen))


def _settled(seen: Standings, trial: Trial) -> Settle:
    goal = seen.sweep.plan.goal
    value = goal.value_of(trial.reports)
    if trial.job_state is JobState.SUCCEEDED:
        if value is not None and math.isfinite(value):
            message = "" if trial.stop_step else trial.message
            return Settle(trial=trial, state=TrialState.SUCCEEDED, value=value, message=message)
        why = "is no finite number" if value is not None else "was not reported"
        return Settle(trial=trial, state=TrialState.FAILED, value=None, message=f"Its `{goal.metric}` {why}.")
    if trial.job_state is JobState.FAILED:
        return Settle(trial=trial, state=TrialState.FAILED, value=None, message=trial.job_message)
    if trial.stop_step:
        last = next((found for _, found in reversed(trial.judged) if math.isfinite(found)), None)
        return Settle(trial=trial, state=TrialState.PRUNED, value=last, message=trial.message)
    return Settle(trial=trial, state=TrialState.CANCELLED, value=None, message="Its job was cancelled.")


def _stopping(seen: Standings) -> Iterator[Action]:
    sweep, still = seen.sweep, seen.open_ones
    if not still:
        state = SweepState.FAILED if sweep.failure is not None else SweepState.CANCELLED
        yield End(state=state, reason=sweep.reason, message=sweep.message)
    for trial in still:
        if trial.job_state in STOPPABLE:
            yield Stop(trial=trial, reason="SWEEP_STOPPED", message=f"Its sweep was stopped: {sweep.message}")


def _running(seen: Standings) -> Iterator[Action]:
    for trial in seen.open_ones:
        if trial.is_paused and trial.job_state is JobState.PAUSED:
            yield ResumeTrial(trial=trial)
    yield from _pruned(seen)
    plan = seen.sweep.plan
    failed = sum(each.state is TrialState.FAILED for each in seen.trials)
    if plan.max_failed_trials and failed > plan.max_failed_trials:
        yield Wind(failure=_too_many(seen, failed))
        return
    if seen.sweep.rounds_done < len(plan.rounds):
        yield from _round(seen, seen.sweep.rounds_done + 1)
    elif not seen.open_ones:
        yield _end(seen)


def _round(seen: Standings, number: int) -> Iterator[Action]:
    """What the round that takes trials now needs."""
    plan = seen.sweep.plan
    made, spent = seen.of_round(number), seen.device_seconds
    if len(made) >= plan.rounds[number - 1].num_trials:
        if not any(each.is_open for each in made):
            yield CloseRound(round=number, why="All of its trials have ended.")
    elif plan.max_device_seconds and spent >= plan.max_device_seconds:
        if not seen.open_ones:
            used = f"{spent:.0f} of {plan.max_device_seconds:.0f} device-seconds are used"
            yield CloseRound(round=len(plan.rounds), why=f"The budget is spent: {used}.")
    elif number > 1 and not best_of(seen.of_round(number - 1), plan.goal):
        yield CloseRound(round=len(plan.rounds), why=f"No trial of round {number - 1} has succeeded.")
    elif len(seen.open_ones) < plan.parallel_trials:
        yield Propose(round=number, question=_question(seen, number))


def _pruned(seen: Standings) -> Iterator[Action]:
    """Judges each running trial against those of its round."""
    plan = seen.sweep.plan
    if plan.pruning is None:
        return
    for trial in seen.open_ones:
        if trial.stop_step:
            if trial.job_state in STOPPABLE:  # it was found out before a crash or a resume by hand
                yield Stop(trial=trial, reason="PRUNED", message=trial.message, step=trial.stop_step)
            continue
        if trial.job_state not in STOPPABLE:
            continue
        standing = Standing(reports=trial.reports, rungs=trial.rungs, total_steps=trial.total_steps)
        others = [each.judged for each in seen.of_round(trial.round) if each.number != trial.number]
        ruling = judge(plan.pruning, plan.goal, standing, others)
        if ruling.step:
            yield Stop(trial=trial, reason="PRUNED", message=ruling.why, step=ruling.step)
        elif ruling.rungs != trial.rungs:
            yield Promote(trial=trial, rungs=ruling.rungs)


def parameters_of(seen: Standings, number: int) -> tuple[Parameter, ...]:
    """Returns the space of a round: the whole one, or that around the best trials of the round before."""
    plan: SweepPlan = seen.sweep.plan
    narrow = plan.rounds[number - 1].narrow_to_best
    if number == 1 or not narrow:
        return plan.parameters
    best = best_of(seen.of_round(number - 1), plan.goal, narrow)
    return narrowed(parameters_of(seen, number - 1), [each.point for each in best])


def told(trial: Trial) -> Told:
    """Returns a trial as the sampler knows it."""
    return Told(
        point=trial.point,
        value=trial.value,
        reports=trial.judged,
        is_pruned=trial.state is TrialState.PRUNED,
        is_open=trial.is_open,
    )


def _question(seen: Standings, number: int) -> Question:
    plan = seen.sweep.plan
    this: Round = plan.rounds[number - 1]
    best = best_of(seen.of_round(number - 1), plan.goal, this.narrow_to_best) if number > 1 else []
    parameters = parameters_of(seen, number)
    return Question(
        parameters=parameters,
        algorithm=plan.algorithm,
        goal=plan.goal,
        seed=plan.seed,
        number=len(seen.trials) + 1,
        num_trials=this.num_trials,
        told=tuple(told(each) for each in seen.of_round(number)),
        taken=frozenset(each.digest for each in seen.trials),
        train_fraction=this.train_fraction,
        first=[each.point for each in best],
    )


def _too_many(seen: Standings, failed: int) -> Failure:
    allowed = seen.sweep.plan.max_failed_trials
    last = next((each.message for each in reversed(seen.trials) if each.state is TrialState.FAILED), "")
    return _failure(f"{failed} trials have failed, {allowed} are allowed; the last: {last}", failed)


def _failure(message: str, failed: int) -> Failure:
    return Failure(
        reason="TRIALS_FAILED",
        message=message,
        cure="Look at the failures of the trials' jobs, then narrow the space or correct the spec.",
        is_user_fault=True,
        metadata=(("failed_trials", str(failed)),),
    )


def _end(seen: Standings) -> End:
    best = best_trial(seen.trials, seen.sweep.plan.goal)
    if best is None:
        failed = sum(each.state is TrialState.FAILED for each in seen.trials)
        last = next((each.message for each in reversed(seen.trials) if each.message), "")
        failure = _failure(f"None of {len(seen.trials)} trials has succeeded; the last: {last}", failed)
        return End(state=SweepState.FAILED, reason=failure.reason, message=failure.message, failure=failure)
    metric = seen.sweep.plan.goal.metric
    message = f"Trial {best.number} of {len(seen.trials)} is the best: its {metric} is {best.value:.6g}."
    return End(state=SweepState.SUCCEEDED, reason="BEST_FOUND", message=message)
