"""What states a job has, which changes are legal, and what the end of an attempt means for its job. Pure rules.

`store.py` enforces the same table a second time inside SQL (`WHERE state IN (...) AND token = ?`), and a trigger keeps
terminal states terminal. Read `decisions.py` next: it says when a change is due.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class JobState(StrEnum):
    """State of a job, spelt as in the contract without its prefix."""

    BLOCKED = "BLOCKED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    PREEMPTING = "PREEMPTING"
    PUBLISHING = "PUBLISHING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class AttemptState(StrEnum):
    """State of an attempt, spelt as in the contract without its prefix."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.BLOCKED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.PAUSED, JobState.CANCELLED, JobState.FAILED}),
    JobState.STARTING: frozenset(
        {JobState.RUNNING, JobState.PAUSING, JobState.QUEUED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.PUBLISHING,
            JobState.PAUSING,
            JobState.PREEMPTING,
            JobState.CANCELLING,
            JobState.QUEUED,
            JobState.FAILED,
        }
    ),
    JobState.PAUSING: frozenset({JobState.PAUSED, JobState.PUBLISHING, JobState.CANCELLING, JobState.FAILED}),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.PREEMPTING: frozenset({JobState.QUEUED, JobState.PUBLISHING, JobState.CANCELLING, JobState.FAILED}),
    JobState.PUBLISHING: frozenset({JobState.SUCCEEDED, JobState.FAILED}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""What may follow on what; a change that is missing here is never made."""

_OUT_OF_MEMORY = "OUT_OF_MEMORY"

TERMINAL = frozenset(state for state, targets in TRANSITIONS.items() if not targets)
"""States that a job never leaves."""

WAITING = frozenset({JobState.BLOCKED, JobState.QUEUED, JobState.PAUSED})
"""States without an attempt: a cancel takes effect at once."""

LEAVING = frozenset({JobState.PAUSING, JobState.PREEMPTING})
"""States in which an attempt was asked to save its state and to leave."""

HELD = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CANCELLING}) | LEAVING
"""States in which an attempt may hold a device."""

LIVE_ATTEMPT = frozenset({AttemptState.STARTING, AttemptState.RUNNING, AttemptState.STOPPING})
"""States of an attempt that may still compute."""


def sources_of(target: JobState) -> frozenset[JobState]:
    """Returns the states from which `target` can be reached in one change."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something that was started ended badly."""

    reason: str
    """Name from `ErrorReason` without its prefix."""
    message: str
    """What is wrong, with the value that is wrong."""
    cure: str = ""
    """What to do about it."""
    is_user_fault: bool = False
    """Whether the same input fails again; then nothing is retried."""
    metadata: tuple[tuple[str, str], ...] = ()
    """All that varies in `message`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended, as its node reported it or as the scheduler judged it."""

    state: AttemptState
    """One of the ended states."""
    failure: Failure | None = None
    """Set with FAILED and LOST, and with INTERRUPTED when its node did not even begin it."""
    step: int = 0
    """Last step that it finished."""

    def __post_init__(self) -> None:
        """Refuses the end of an attempt that has not ended."""
        if self.state in LIVE_ATTEMPT:
            raise ValueError(f"an attempt in state {self.state} has not ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults that a job has had."""

    infrastructure: int = 0
    user: int = 0
    """Faults of its own."""
    signature: str | None = None
    """Reason and step of the newest one of its own."""
    rows_at_once: int = 0
    """Rows that its newest attempt computed at once, where fewer would be the same run; 0: not known, or fixed."""


class FaultBudget(StrEnum):
    """Budgets of faults, spelt as in the contract without its prefix."""

    INFRASTRUCTURE = "INFRASTRUCTURE"
    USER = "USER"
    MICRO_BATCH = "MICRO_BATCH"
    """None: the next attempt computes half as many rows at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a job is tried again: faults of the infrastructure and of its own count apart."""

    budget: int = 5
    """Attempts that may be lost to infrastructure before the job fails."""
    user_budget: int = 0
    """Faults of its own after which it is tried again."""
    first_delay_s: float = 1.0
    """Upper bound of the first wait; it doubles with each fault."""
    longest_delay_s: float = 300.0
    """Cap of the upper bound."""

    def delay_s(self, faults: int, jitter: float) -> float:
        """Returns the wait before the next attempt.

        Args:
            faults: faults of the same kind so far, this one included, >= 1.
            jitter: random number in [0, 1): full jitter, so that a fleet does not come back all at once.
        """
        bound: float = min(self.longest_delay_s, self.first_delay_s * 2.0 ** (min(faults, 32) - 1))
        return bound * jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the end of an attempt means for its job."""

    to: JobState
    """The job's next state."""
    reason: str
    """Stable word for the log."""
    message: str
    """Sentence for a person."""
    failure: Failure | None = None
    """Set with FAILED."""
    uses: FaultBudget | None = None
    """The budget that shrinks by one."""
    signature: str | None = None
    """Reason and step of a fault of the job's own."""
    delay_s: float = 0.0
    """Wait before the next attempt; with QUEUED."""
    rows_at_once: int = 0
    """Most rows that its next attempts compute at once; 0: as before."""


def verdict(job: JobState, end: AttemptEnd, faults: Faults, policy: RetryPolicy, jitter: float) -> Verdict | None:
    """Decides what becomes of a job whose current attempt has ended.

    Args:
        job: the job's state, one of `HELD`.
        end: how the attempt ended.
        faults: faults of the job before this one.
        policy: budgets and delays.
        jitter: random number in [0, 1).

    Returns:
        The change, or None when the state does not wait for an attempt (the end has no meaning for it any more).
    """
    if job not in HELD:
        return None
    if job is JobState.CANCELLING:
        return Verdict(
            to=JobState.CANCELLED, reason="CANCELLED", message="The job was cancelled and its device is free."
        )
    if end.state is AttemptState.SUCCEEDED:
        return Verdict(
            to=JobState.PUBLISHING, reason="TRAINED", message="Training is done; its result is being registered."
        )
    if end.state is AttemptState.INTERRUPTED and job not in LEAVING:
        return _interrupted(end.failure, policy)
    failure = end.failure or _unsaid(end.state)
    if failure.reason == _OUT_OF_MEMORY and faults.rows_at_once > 1:
        return _fewer_at_once(job, failure, faults.rows_at_once)
    if end.state is AttemptState.FAILED and failure.is_user_fault:
        return _own_fault(job, replace(end, failure=failure), faults, policy, jitter)
    if job in LEAVING:
        return _left(job, end)
    return _retry(failure, faults.infrastructure + 1, policy, jitter)


def fault_signature(failure: Failure, step: int) -> str:
    """Returns what two faults of a job's own share when trying again would only give the same one once more."""
    return f"{failure.reason} after step {step}"


def _fewer_at_once(job: JobState, failure: Failure, rows: int) -> Verdict:
    """Nobody asked for so many rows at once: with half of them it is the same optimisation, in less memory."""
    return Verdict(
        to=JobState.PAUSED if job is JobState.PAUSING else JobState.QUEUED,
        reason=failure.reason,
        message=f"{failure.message.rstrip('. ')}. It computed {rows} rows at once; its next attempt computes "
        f"{rows // 2}, with as many rows in a step as before.",
        uses=FaultBudget.MICRO_BATCH,
        rows_at_once=rows // 2,
    )


def _own_fault(job: JobState, end: AttemptEnd, faults: Faults, policy: RetryPolicy, jitter: float) -> Verdict:
    failure = end.failure
    if failure is None:
        raise AssertionError("a fault of the job's own has a reason")
    signature, count = fault_signature(failure, end.step), faults.user + 1
    uses = FaultBudget.USER
    is_repeated = signature == faults.signature
    if count > policy.user_budget or is_repeated:
        words = f" The attempt before ended with the same fault, {signature}: it is not tried again."
        if is_repeated:
            failure = replace(failure, message=f"{failure.message.rstrip('. ')}.{words}")
        return Verdict(
            to=JobState.FAILED, reason=failure.reason, message=failure.message, failure=failure, uses=uses,
            signature=signature,
        )  # fmt: skip
    words = f"{failure.message} Fault {count} of its own, {policy.user_budget} allowed"
    if job is JobState.PAUSING:
        words += "; it goes on when it is resumed."
        return Verdict(to=JobState.PAUSED, reason=failure.reason, message=words, uses=uses, signature=signature)
    return Verdict(
        to=JobState.QUEUED,
        reason=failure.reason,
        message=f"{words}; a new attempt follows.",
        uses=uses,
        signature=signature,
        delay_s=policy.delay_s(count, jitter),
    )


def _interrupted(why: Failure | None, policy: RetryPolicy) -> Verdict:
    if why is None:
        message = "The attempt was stopped after it had saved a checkpoint."
        return Verdict(to=JobState.QUEUED, reason="INTERRUPTED", message=message)
    # Its node took no more work: nothing was lost, but asking the same node again at once would only spin.
    return Verdict(
        to=JobState.QUEUED, reason="INTERRUPTED", message=why.message, delay_s=min(1.0, policy.longest_delay_s)
    )


def _left(job: JobState, end: AttemptEnd) -> Verdict:
    """The attempt left as it was asked to; how well it did costs no budget, since it was not its own wish."""
    has_saved = end.state is AttemptState.INTERRUPTED
    how = "saved its state and left" if has_saved else "left; it goes on from the checkpoint before"
    if job is JobState.PAUSING:
        return Verdict(to=JobState.PAUSED, reason="PAUSED", message=f"Its attempt {how}.")
    return Verdict(to=JobState.QUEUED, reason="PREEMPTED", message=f"Its attempt {how}; it waits for its next turn.")


def _retry(failure: Failure, faults: int, policy: RetryPolicy, jitter: float) -> Verdict:
    if faults > policy.budget:
        spent = Failure(
            reason="RETRIES_SPENT",
            message=f"{faults} attempts were lost to infrastructure, {policy.budget} are allowed; the last: "
            f"{failure.message}",
            cure="Look at the nodes that ran its attempts, then create the job again.",
            metadata=(("attempts_lost", str(faults)), ("budget", str(policy.budget)), ("last_reason", failure.reason)),
        )
        return Verdict(
            to=JobState.FAILED,
            reason=spent.reason,
            message=spent.message,
            failure=spent,
            uses=FaultBudget.INFRASTRUCTURE,
        )
    delay_s = policy.delay_s(faults, jitter)
    return Verdict(
        to=JobState.QUEUED,
        reason=failure.reason,
        message=f"{failure.message} Infrastructure fault {faults} of {policy.budget} allowed; a new attempt follows.",
        uses=FaultBudget.INFRASTRUCTURE,
        delay_s=delay_s,
    )


def _unsaid(state: AttemptState) -> Failure:
    if state is AttemptState.CANCELLED:
        return Failure(
            reason="WORKER_LOST",
            message="The attempt was cancelled at its node, not by the scheduler.",
            cure="Cancel jobs with CancelJob.",
        )
    return Failure(
        reason="WORKER_LOST",
        message="The attempt's process ended without an outcome.",
        cure="Look at the node's log for the end of the process.",
    )


def dependency_failure(dependency: str, state: JobState) -> Failure:
    """Returns why a job fails that waits for `dependency`, which ended in `state` instead of SUCCEEDED."""
    return Failure(
        reason="DEPENDENCY_FAILED",
        message=f"It waits for {dependency}, which ended as {state}.",
        cure=f"Make {dependency} succeed under a new name, then create this job again on that output.",
        is_user_fault=True,
        metadata=(("job", dependency), ("state", str(state))),
    )
