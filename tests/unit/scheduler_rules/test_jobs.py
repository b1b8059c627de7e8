"""The table of states and what the end of an attempt means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.scheduler.jobs import (
    HELD,
    LEAVING,
    LIVE_ATTEMPT,
    TERMINAL,
    TRANSITIONS,
    AttemptEnd,
    AttemptState,
    Failure,
    FaultBudget,
    Faults,
    JobState,
    RetryPolicy,
    sources_of,
    verdict,
)

POLICY = RetryPolicy(budget=2, first_delay_s=1.0, longest_delay_s=3.0)
ENDS = [
    AttemptEnd(state=state, failure=Failure(reason="WORKER_LOST", message="gone.", is_user_fault=fault))
    for state in AttemptState
    if state not in LIVE_ATTEMPT
    for fault in (False, True)
]


def test_terminal_states_are_the_three() -> None:
    """Only SUCCEEDED, FAILED and CANCELLED are terminal, and nothing leaves them."""
    assert set(TERMINAL) == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
    assert all(not TRANSITIONS[state] for state in TERMINAL)


def test_every_state_can_reach_an_end() -> None:
    """No state is a trap."""
    reached = set(TERMINAL)
    while more := {state for state, targets in TRANSITIONS.items() if targets & reached} - reached:
        reached |= more
    assert reached == set(JobState)


def test_publishing_cannot_be_cancelled() -> None:
    """From PUBLISHING there are only SUCCEEDED and FAILED, and only a run that was not cancelled leads there."""
    assert TRANSITIONS[JobState.PUBLISHING] == {JobState.SUCCEEDED, JobState.FAILED}
    assert sources_of(JobState.PUBLISHING) == {JobState.RUNNING, *LEAVING}


@pytest.mark.parametrize(("state", "to"), [(JobState.PAUSING, JobState.PAUSED), (JobState.PREEMPTING, JobState.QUEUED)])
def test_a_job_that_was_asked_to_leave_spends_no_budget(state: JobState, to: JobState) -> None:
    """However its attempt left, a job is paused or queued; but a finished run is published and a user's fault fails."""
    for end in ENDS:
        ruling = verdict(state, end, Faults(infrastructure=99), POLICY, 0.5)
        assert ruling is not None
        assert ruling.uses is not FaultBudget.INFRASTRUCTURE
        if end.state is AttemptState.SUCCEEDED:
            assert ruling.to is JobState.PUBLISHING
        elif end.state is AttemptState.FAILED and end.failure and end.failure.is_user_fault:
            assert ruling.to is JobState.FAILED
        else:
            assert ruling.to is to
            assert ("saved" in ruling.message) == (end.state is AttemptState.INTERRUPTED)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: f"{end.state}-{end.failure.is_user_fault}")
@pytest.mark.parametrize("state", list(JobState))
def test_verdicts_are_legal(state: JobState, end: AttemptEnd) -> None:
    """Whatever ends in whatever state, the verdict is a legal change, or one over RUNNING for a fast success."""
    ruling = verdict(state, end, Faults(), POLICY, 0.5)
    if state not in HELD:
        assert ruling is None
        return
    assert ruling is not None
    if ruling.to is JobState.PUBLISHING and state is JobState.STARTING:
        state = JobState.RUNNING
    assert ruling.to in TRANSITIONS[state]
    assert ruling.message.endswith(".")


def test_cancelling_ends_cancelled_whatever_happened() -> None:
    """An accepted cancel wins over every end of the attempt."""
    rulings = [verdict(JobState.CANCELLING, end, Faults(), POLICY, 0.5) for end in ENDS]
    assert {ruling.to for ruling in rulings if ruling} == {JobState.CANCELLED}


def test_user_fault_is_final() -> None:
    """A user's fault fails the job without touching the infrastructure budget."""
    failure = Failure(reason="LOSS_NOT_FINITE", message="nan", is_user_fault=True)
    ruling = verdict(JobState.RUNNING, AttemptEnd(state=AttemptState.FAILED, failure=failure), Faults(), POLICY, 0.5)
    assert ruling is not None
    assert (ruling.to, ruling.failure, ruling.uses) == (JobState.FAILED, failure, FaultBudget.USER)


def test_infrastructure_faults_back_off_and_end() -> None:
    """Waits double up to the cap with full jitter; the fault beyond the budget fails the job."""
    lost = AttemptEnd(state=AttemptState.LOST)
    delays = [verdict(JobState.RUNNING, lost, Faults(infrastructure=faults), POLICY, 1.0) for faults in range(2)]
    assert [ruling.delay_s for ruling in delays if ruling] == [1.0, 2.0]
    assert POLICY.delay_s(9, 1.0) == 3.0
    assert POLICY.delay_s(9, 0.0) == 0.0
    spent = verdict(JobState.RUNNING, lost, Faults(infrastructure=2), POLICY, 0.5)
    assert spent is not None
    assert spent.failure is not None
    assert (spent.to, spent.failure.reason) == (JobState.FAILED, "RETRIES_SPENT")


def test_live_attempt_has_no_end() -> None:
    """The end of an attempt that still runs cannot be made."""
    with pytest.raises(ValueError, match="has not ended"):
        AttemptEnd(state=AttemptState.RUNNING)


def test_a_fault_of_its_own_is_tried_again_until_it_repeats_itself() -> None:
    """With a budget for faults of its own a job is queued again, but not for the same fault at the same step."""
    policy = RetryPolicy(user_budget=3, first_delay_s=2.0)
    failure = Failure(reason="LOSS_NOT_FINITE", message="nan.", is_user_fault=True)
    end = AttemptEnd(state=AttemptState.FAILED, failure=failure, step=7)
    first = verdict(JobState.RUNNING, end, Faults(infrastructure=9), policy, 0.5)
    assert first is not None
    assert (first.to, first.uses, first.delay_s) == (JobState.QUEUED, FaultBudget.USER, 1.0)
    again = verdict(JobState.RUNNING, end, Faults(user=1, signature=first.signature), policy, 0.5)
    assert again is not None
    assert (again.to, again.failure and again.failure.reason) == (JobState.FAILED, "LOSS_NOT_FINITE")
    assert "same fault, LOSS_NOT_FINITE after step 7" in again.message
    later = verdict(JobState.RUNNING, replace(end, step=8), Faults(user=1, signature=first.signature), policy, 0.5)
    assert later is not None
    assert later.to is JobState.QUEUED
    spent = verdict(JobState.RUNNING, replace(end, step=9), Faults(user=3, signature="x"), policy, 0.5)
    assert spent is not None
    assert spent.to is JobState.FAILED
    paused = verdict(JobState.PAUSING, end, Faults(), policy, 0.5)
    assert paused is not None
    assert (paused.to, paused.uses) == (JobState.PAUSED, FaultBudget.USER)
