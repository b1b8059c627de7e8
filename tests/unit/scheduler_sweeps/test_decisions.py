"""What is due in a sweep, from its rows alone."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.jobs import Failure, JobState
from services.scheduler.sweeps.decisions import (
    Action,
    CloseRound,
    End,
    PauseTrial,
    Promote,
    Propose,
    ResumeTrial,
    Settle,
    Stop,
    Wind,
    decide,
)
from services.scheduler.sweeps.plan import Goal, Halving, Range, Round, SweepPlan
from services.scheduler.sweeps.space import digest_of
from services.scheduler.sweeps.trials import Standings, SweepState, Trial, TrialState
from tests.unit.scheduler_sweeps.spaces import choices, ranged, small_plan, standings, trial

RANK = choices("rank", 4, 8, 16)
PLAN = small_plan(RANK, num_trials=2)


def kinds(actions: list[Action]) -> list[type[Action]]:
    """Returns what kinds of actions there are."""
    return [type(each) for each in actions]


def failed(number: int, rank: int) -> Trial:
    """Returns a trial whose job failed."""
    return trial(number, {"rank": rank}, state=TrialState.FAILED, job_state=JobState.FAILED, message="The loss is nan.")


def test_trials_begin_up_to_the_parallel_ones() -> None:
    """One proposal at a time, for it depends on those before; none beyond the bound, the number or the budget."""
    (first,) = decide(standings(PLAN))
    assert isinstance(first, Propose)
    assert (first.round, first.question.number) == (1, 1)
    one = trial(1, {"rank": 4}, device_seconds=60.0)
    assert decide(standings(PLAN, (one,))) == []
    two = replace(PLAN, parallel_trials=2)
    (second,) = decide(standings(two, (one,)))
    assert isinstance(second, Propose)
    assert second.question.taken == {digest_of({"rank": 4}, 0.0)}
    assert second.question.told[0].is_open
    assert decide(standings(two, (one, trial(2, {"rank": 8})))) == []
    assert decide(standings(replace(two, max_device_seconds=60.0), (one,))) == []


def test_an_ended_job_settles_its_trial_first() -> None:
    """By its best value, or its last; without one, or with one that is no number, it has failed."""
    done = trial(1, {"rank": 4}, job_state=JobState.SUCCEEDED, reports=((1, 0.5), (2, 0.7)))
    assert decide(standings(PLAN, (done,))) == [Settle(trial=done, state=TrialState.SUCCEEDED, value=0.5, message="")]
    last = replace(PLAN, goal=Goal(is_last=True))
    assert decide(standings(last, (done,)))[0].value == 0.7  # type: ignore[attr-defined]
    for reports, words in (((), "was not reported"), (((1, float("nan")),), "is no finite number")):
        (settled,) = decide(standings(PLAN, (replace(done, reports=reports),)))
        assert isinstance(settled, Settle)
        assert (settled.state, settled.message) == (TrialState.FAILED, f"Its `validation_loss` {words}.")


def test_a_trial_is_not_settled_before_its_log_is_read() -> None:
    """Its last value may be in what is not read yet."""
    done = trial(1, {"rank": 4}, job_state=JobState.SUCCEEDED, read_seq=3, latest_seq=4)
    assert decide(standings(PLAN, (done,))) == []


def test_a_failed_trial_does_not_stop_the_search_and_is_never_the_best() -> None:
    """004-20: it is shown with its reason and counted; the search goes on and ends with a trial that has a value."""
    goal = replace(PLAN, goal=Goal(is_maximised=True))
    assert kinds(decide(standings(goal, (failed(1, 4),)))) == [Propose]
    both = (failed(1, 4), trial(2, {"rank": 8}, -0.5))
    assert decide(standings(goal, both)) == [CloseRound(round=1, why="All of its trials have ended.")]
    (end,) = decide(standings(goal, both, rounds_done=1))
    assert isinstance(end, End)
    assert (end.state, end.message) == (
        SweepState.SUCCEEDED,
        "Trial 2 of 2 is the best: its validation_loss is -0.5.",
    )


def test_a_sweep_fails_by_its_policy_and_without_any_success() -> None:
    """More failed trials than allowed stop what runs; none that has succeeded is a failure at the end."""
    plan = replace(PLAN, rounds=(Round(num_trials=5),), max_failed_trials=1, parallel_trials=2)
    running = trial(3, {"rank": 16})
    (wind,) = decide(standings(plan, (failed(1, 4), failed(2, 8), running)))
    assert isinstance(wind, Wind)
    assert wind.failure.message == "2 trials have failed, 1 are allowed; the last: The loss is nan."
    stopping = standings(plan, (failed(1, 4), running), state=SweepState.STOPPING, failure=b"x", message="Why.")
    assert kinds(decide(stopping)) == [Stop]
    assert decide(replace(stopping, trials=(failed(1, 4),))) == [
        End(state=SweepState.FAILED, reason="", message="Why.")
    ]
    (end,) = decide(standings(PLAN, (failed(1, 4), failed(2, 8)), rounds_done=1))
    assert isinstance(end, End)
    assert isinstance(end.failure, Failure)
    assert (end.state, end.failure.reason) == (SweepState.FAILED, "TRIALS_FAILED")


def test_equal_values_give_the_older_trial() -> None:
    """Ties are broken by number, and what the last round has goes before what an earlier one has."""
    plan = replace(PLAN, rounds=(Round(num_trials=2), Round(num_trials=1)))
    trials = (trial(1, {"rank": 4}, 0.5), trial(2, {"rank": 8}, 0.5), trial(3, {"rank": 4}, 0.9, round=2))
    (end,) = decide(standings(plan, trials, rounds_done=2))
    assert isinstance(end, End)
    assert end.message.startswith("Trial 3 of 3")
    (end,) = decide(standings(plan, trials[:2], rounds_done=2))
    assert isinstance(end, End)
    assert end.message.startswith("Trial 1 of 2")


def test_a_pause_takes_the_jobs_with_it_and_a_resume_only_those() -> None:
    """A job that a person has paused stays paused."""
    running, queued = trial(1, {"rank": 4}), trial(2, {"rank": 8}, job_state=JobState.QUEUED)
    by_hand = trial(3, {"rank": 16}, job_state=JobState.PAUSED)
    paused = standings(PLAN, (running, queued, by_hand), state=SweepState.PAUSED)
    assert decide(paused) == [PauseTrial(trial=running), PauseTrial(trial=queued)]
    ours = trial(1, {"rank": 4}, job_state=JobState.PAUSED, is_paused=True)
    assert decide(standings(PLAN, (ours, by_hand))) == [ResumeTrial(trial=ours)]


def halving(*trials: Trial) -> Standings:
    """Returns a sweep with successive halving at steps 2, 4, 8, ..."""
    plan = small_plan(RANK, num_trials=3, pruning=Halving(min_steps=2, reduction_factor=2), parallel_trials=3)
    return standings(plan, trials)


def test_a_bad_trial_is_stopped_and_its_place_taken() -> None:
    """It is judged by what its round reported; it counts as PRUNED once its job has ended, with its last value."""
    good, bad = trial(1, {"rank": 4}, reports=((2, 0.1),)), trial(2, {"rank": 8}, reports=((2, 0.9),))
    actions = decide(halving(good, bad))
    assert kinds(actions) == [Promote, Stop, Propose]
    stop = actions[1]
    assert isinstance(stop, Stop)
    assert (stop.trial.number, stop.reason, stop.step) == (2, "PRUNED", 2)
    stopping = replace(
        bad, stop_step=2, message=stop.message, job_state=JobState.CANCELLING, reports=((2, 0.9), (4, 0.8))
    )
    assert kinds(decide(halving(replace(good, rungs=1), stopping))) == [Propose]
    gone = replace(stopping, job_state=JobState.CANCELLED)
    assert decide(halving(good, gone)) == [Settle(trial=gone, state=TrialState.PRUNED, value=0.9, message=stop.message)]


def test_a_trial_that_finished_before_its_stop_has_succeeded() -> None:
    """A cancel that came too late loses: the result is there."""
    done = trial(1, {"rank": 4}, stop_step=2, job_state=JobState.SUCCEEDED, reports=((2, 0.9), (4, 0.8)))
    (settled,) = decide(halving(done))
    assert isinstance(settled, Settle)
    assert (settled.state, settled.value) == (TrialState.SUCCEEDED, 0.8)


def two_rounds() -> SweepPlan:
    """Returns a plan of a broad round on a part of the data, and a narrow one on all of it."""
    rounds = (Round(num_trials=3, train_fraction=0.2), Round(num_trials=2, narrow_to_best=2))
    return small_plan(ranged("rate", 0.0, 1.0), rounds=rounds)


def test_a_second_round_searches_around_the_best_of_the_first() -> None:
    """004-43: it begins when the first has ended, with the best parameters themselves, on all rows."""
    values = (0.5, 0.1, 0.3)
    trials = tuple(trial(n, {"rate": n / 10}, value) for n, value in enumerate(values, 1))
    (propose,) = decide(standings(two_rounds(), trials, rounds_done=1))
    assert isinstance(propose, Propose)
    asked = propose.question
    assert (propose.round, asked.train_fraction, asked.told) == (2, 0.0, ())
    assert list(asked.first) == [{"rate": 0.2}, {"rate": 0.3}]
    space = asked.parameters[0].values
    assert isinstance(space, Range)
    assert abs(space.low) < 1e-12
    assert abs(space.high - 0.55) < 1e-12
    still = replace(trials[2], state=TrialState.RUNNING, value=None, job_state=JobState.RUNNING)
    assert decide(standings(two_rounds(), (*trials[:2], still))) == []


def test_a_round_without_success_ends_the_sweep() -> None:
    """There is nothing to refine."""
    trials = (failed(1, 4), failed(2, 8), failed(3, 16))
    (close,) = decide(standings(two_rounds(), trials, rounds_done=1))
    assert close == CloseRound(round=2, why="No trial of round 1 has succeeded.")


def test_a_spent_budget_ends_the_sweep_when_its_trials_have_ended() -> None:
    """Nothing begins, what runs goes on, and the best so far is the result."""
    plan = replace(PLAN, rounds=(Round(num_trials=5), Round(num_trials=5)), max_device_seconds=100.0)
    done = trial(1, {"rank": 4}, 0.5, device_seconds=80.0)
    running = trial(2, {"rank": 8}, device_seconds=25.0)
    assert decide(standings(plan, (done, running))) == []
    (close,) = decide(standings(plan, (done, replace(running, state=TrialState.SUCCEEDED, value=0.4))))
    assert close == CloseRound(round=2, why="The budget is spent: 105 of 100 device-seconds are used.")


def test_an_ended_sweep_needs_nothing() -> None:
    """Whatever its rows say."""
    for state in (SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED):
        assert decide(standings(PLAN, (trial(1, {"rank": 4}),), state=state)) == []
