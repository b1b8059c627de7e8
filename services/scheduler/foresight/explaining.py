"""Why a job is in its state now, and what comes next: one answer out of a moment. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.scheduler.decisions import waited_for
from services.scheduler.foresight import blockers
from services.scheduler.foresight.blockers import Blocker, Reason
from services.scheduler.foresight.forecast import Outlook, Outlooks
from services.scheduler.foresight.moment import Moment, starts_at_ms, unmet
from services.scheduler.foresight.nodes_said import Finding, findings
from services.scheduler.foresight.places import Place, duration, place_of
from services.scheduler.foresight.promises import Event, Quality, Span, widened
from services.scheduler.foresight.run_times import Basis, RunTime
from services.scheduler.jobs import HELD, LEAVING, TERMINAL, JobState
from services.scheduler.planning.order import goes_before, running_key, standings, waiting_key
from services.scheduler.planning.plan import Decision, GiveWay
from services.scheduler.planning.queue import Running, Waiting
from services.scheduler.queues.budgets import BUDGET_SPENT
from services.scheduler.queues.periods import shown
from services.scheduler.records import ActiveJob, Job

MOST = 10
"""Jobs that a list of an answer names."""
_NAMED = 3
"""Jobs that a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemptor:
    """A waiting job that goes before a running one."""

    job: int
    why: str
    is_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job with a node is."""

    step: int
    total_steps: int
    time: RunTime | None
    nodes: tuple[str, ...]
    stop_costs_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A forecast as it is told: widened by what earlier ones were worth."""

    make_ms: int
    start: Span | None
    end: Span | None
    basis: Basis
    why: str
    looked_at: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer."""

    name: str
    state: JobState
    reason: str
    summary: str
    observe_ms: int
    blockers: tuple[Blocker, ...] = ()
    place: Place | None = None
    told: Told | None = None
    progress: Progress | None = None
    preemptors: tuple[Preemptor, ...] = ()
    findings: tuple[Finding, ...] = ()
    may_overtake: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A moment with all that was made of it."""

    moment: Moment
    decisions: Sequence[Decision]
    """The planner's, of this moment."""
    order: Sequence[Waiting]
    outlooks: Outlooks
    qualities: Mapping[Event, Quality]


def explain(job: Job, view: View) -> Explanation:
    """Returns why a job is in its state and what comes next.

    Args:
        job: As it is stored.
        view: The moment.
    """
    moment, now_ms = view.moment, view.moment.queue.now_ms
    active = moment.jobs.get(job.number)
    if job.state in TERMINAL or active is None:
        return Explanation(
            name=str(job.name), state=job.state, reason=job.reason, summary=_ended(job), observe_ms=now_ms
        )
    waiting = next((each for each in moment.queue.waiting if each.job == job.number), None)
    running = next((each for each in moment.queue.running if each.job == job.number), None)
    said = _said(active, waiting, running, moment)
    place = None if waiting is None else place_of(waiting, view.order, moment.queue)
    found = _blockers(job, active, waiting, running, view, said)
    is_open = job.is_unreachable or job.is_stalled or (job.state in {JobState.PAUSED, *LEAVING} and running is None)
    told = None if is_open else told_of(job.number, view)
    return Explanation(
        name=str(job.name),
        state=job.state,
        reason=job.reason,
        summary=" ".join([_summary(job, found, place, told, running), *_troubles(job, active)]),
        observe_ms=now_ms,
        blockers=found,
        place=place,
        told=told,
        progress=None if running is None else _progress(active, running, moment),
        preemptors=() if running is None else preemptors(running, view),
        findings=said,
        may_overtake=0 if place is None or waiting is None else _overtaking(waiting, view),
    )


def _troubles(job: Job, active: ActiveJob) -> Iterator[str]:
    """Gives what is wrong with the attempt of a job that has a node, as sentences."""
    if job.is_unreachable:
        after = duration(active.lost_after_ms / 1000)
        yield f"Its node does not answer: the attempt may still be running there; another one follows after {after}."
    if job.is_stalled:
        yield "It makes no progress: its log (`tuneforge jobs watch`) says where its threads stand."


def _said(active: ActiveJob, waiting: Waiting | None, running: Running | None, moment: Moment) -> tuple[Finding, ...]:
    """Returns what nodes say to a job; to one that has a node, what the others say."""
    situation = moment.situation
    later = (each.waiting for each in situation.later if each.waiting.job == active.number)
    as_waiting = waiting or situation.again.get(active.number) or next(later, None)
    held = frozenset() if running is None else running.held.keys()
    nodes = [node for node in moment.seen.nodes if node.node not in held]
    return tuple(findings(active.needs, as_waiting, moment.queue, nodes))


def told_of(number: int, view: View) -> Told | None:
    """Returns what is foreseen of a job as it is told; None: nothing is known of it."""
    time = view.moment.times.get(number)
    if time is None:
        return None
    return told(view.outlooks.of(number), time, view.outlooks, view.qualities)


def told(outlook: Outlook, time: RunTime, outlooks: Outlooks, qualities: Mapping[Event, Quality]) -> Told:
    """Returns a forecast as it is told."""
    now_ms = outlooks.now_ms
    start, end = outlook.start, outlook.end
    if start is not None:
        start = widened(start, now_ms, qualities.get(Event.START, Quality()))
    if end is not None:
        end = widened(end, now_ms, qualities.get(Event.END, Quality()))
    return Told(
        make_ms=now_ms,
        start=start,
        end=end,
        basis=time.basis,
        why=_why(time, outlooks, qualities.get(Event.END, Quality()), is_foreseen=end is not None),
        looked_at=outlooks.looked_at,
        waiting=len(outlooks.order),
    )


def _why(time: RunTime, outlooks: Outlooks, found: Quality, *, is_foreseen: bool) -> str:
    if not is_foreseen:
        return "It cannot be foreseen: nothing that is known would give it a node."
    steps = time.steps
    words = {
        Basis.STEPS: f"Run time from {steps.count} measured steps of {steps.median_s:.3g} s "
        f"({steps.low_s:.3g} to {steps.high_s:.3g} s)."
        if steps is not None
        else "",
        Basis.ESTIMATE: "Run time from the prediction for its spec.",
        Basis.HISTORY: f"Run time from {time.runs} finished runs; its own prediction is not known.",
        Basis.GUESS: "Nothing is known of its run time: it is guessed.",
    }[time.basis]
    if outlooks.looked_at < len(outlooks.order):
        words += f" The planner was run with the first {outlooks.looked_at} of {len(outlooks.order)} waiting jobs; "
        words += "later turns are computed from the work before them and the slots there are."
    if found.is_applied:
        words += (
            f" Widened by {found.decided} earlier promises: the real time was {found.median_ratio:.2g} times the "
            f"expected one ({found.low_ratio:.2g} to {found.high_ratio:.2g})."
        )
    return words


def _blockers(
    job: Job,
    active: ActiveJob,
    waiting: Waiting | None,
    running: Running | None,
    view: View,
    said: Sequence[Finding],
) -> tuple[Blocker, ...]:
    if waiting is not None:
        return blockers.of_waiting(waiting, view.moment, view.decisions, said)
    if job.state in LEAVING or job.state is JobState.CANCELLING:
        nodes = ", ".join(f"nodes/{node}" for node in running.held) if running is not None else "its node"
        message = f"Its attempt still holds {nodes} and is about to leave: {job.message}"
        return (Blocker(reason=Reason.STILL_HELD, message=message, cure="Nothing is to be done: it leaves in time."),)
    if job.state is JobState.BLOCKED:
        return (dependency(active, view.moment),)
    if job.state is JobState.PAUSED:
        return (_paused(job, active.goes_on_ms),)
    if job.state is JobState.QUEUED:
        return (not_yet(active, view.moment.queue.now_ms, job.message),)
    return ()


def dependency(active: ActiveJob, moment: Moment) -> Blocker:
    """Returns which jobs a BLOCKED one waits for."""
    numbers = tuple(sorted(unmet(active, moment.seen) or waited_for(active)))
    found = [(each, *_named(each, moment)) for each in numbers[:_NAMED]]
    said = [f"{'the output of ' * (each == active.depends_on)}{name}{state}" for each, name, state in found]
    if len(numbers) > _NAMED:
        said.append(f"{len(numbers) - _NAMED} others")
    first = found[0][1].rpartition("/")[2] if found else "JOB"
    return Blocker(
        reason=Reason.DEPENDENCY,
        message=f"It waits for {' and for '.join(said)}.",
        cure=f"See what that job waits for: `tuneforge jobs explain {first}`.",
        jobs=numbers,
    )


def _named(number: int, moment: Moment) -> tuple[str, str]:
    """Returns the name of a job that another one waits for, and its state in words."""
    job = moment.jobs.get(number)
    if job is not None:
        return str(job.name), f" in state {job.state}"
    name, state = moment.seen.dependencies.get(number, ("another job", None))
    return name, f" in state {state}" if state is not None else ""


def _paused(job: Job, goes_on_ms: int | None) -> Blocker:
    is_budget = job.reason == BUDGET_SPENT
    if goes_on_ms is not None:
        message = f"{job.message} It goes on by itself on {shown(goes_on_ms)}, when the next period begins."
        cure = "Wait until then, or have the budget of the project raised (`tuneforge queues`) and resume it."
        return Blocker(reason=Reason.BUDGET, message=message, cure=cure)
    return Blocker(
        reason=Reason.BUDGET if is_budget else Reason.PAUSED,
        message=job.message,
        cure="Raise the budget, then resume it." if is_budget else "Resume it: `tuneforge jobs resume`.",
    )


def not_yet(active: ActiveJob, now_ms: int, said: str = "") -> Blocker:
    """Returns why a queued job does not wait for a node yet; `said` is the sentence of its last change."""
    left = duration((starts_at_ms(active) - now_ms) / 1000)
    if active.start_after_ms > max(now_ms, active.not_before_ms):
        message = f"It is not to start for another {left}, by its `scheduling.start_after`."
        return Blocker(reason=Reason.START_AFTER, message=message, cure="Wait, or create it without that time.")
    if active.not_before_ms > now_ms:
        message = f"Its next attempt comes in {left}: {said}"
        return Blocker(reason=Reason.RETRY_WAIT, message=message, cure="Wait; the pause grows with each fault.")
    message = "The scheduler has not looked at it yet."
    return Blocker(reason=Reason.OTHERS_FIRST, message=message, cure="Ask again in a moment.")


def _progress(active: ActiveJob, running: Running, moment: Moment) -> Progress:
    attempt = moment.attempts.get(active.number)
    return Progress(
        step=max(active.step, attempt.step if attempt is not None else 0),
        total_steps=active.total_steps,
        time=moment.times.get(active.number),
        nodes=tuple(running.held),
        stop_costs_ms=running.loss_ms,
    )


_CAUSES = ("a higher class", "a project below its share", "less work so far")


def preemptors(running: Running, view: View) -> tuple[Preemptor, ...]:
    """Returns the waiting jobs that go before a running one, in order; empty where it cannot be stopped."""
    queue = view.moment.queue
    if not running.is_preemptible or running.is_leaving or not queue.rules.preempts:
        return ()
    by_project = standings(queue)
    mine = running_key(running, queue, by_project[running.project])
    due = {each.to_job for each in view.decisions if isinstance(each, GiveWay) and each.job == running.job}
    found = []
    for job in view.order:
        key = waiting_key(job, queue, by_project[job.project])
        if not goes_before(key, mine):
            break  # nobody later in the order does
        cause = next(name for name, one, other in zip(_CAUSES, key, mine, strict=False) if one != other)
        found.append(Preemptor(job=job.job, why=f"It has {cause}.", is_due=job.job in due))
        if len(found) == MOST:
            break
    return tuple(found)


def _overtaking(job: Waiting, view: View) -> int:
    """Returns how many later jobs ask for less and could slip by while it does not fit."""
    size = job.parts * job.slots
    behind = [other.job for other in view.order].index(job.job)
    return sum(other.parts * other.slots < size for other in view.order[behind + 1 :])


def _ended(job: Job) -> str:
    began = f" after {duration((job.end_ms - job.create_ms) / 1000)}" if job.end_ms is not None else ""
    version = f" It published {job.published.version}." if job.published is not None else ""
    return f"It ended as {job.state}{began}: {job.message}{version}"


def _summary(
    job: Job, found: Sequence[Blocker], place: Place | None, told: Told | None, running: Running | None
) -> str:
    parts = []
    if found:
        parts.append(f"It is {job.state}: {found[0].message}")
    elif place is not None:
        parts.append("Nothing is in its way: it starts with the scheduler's next look.")
    else:
        parts.append(f"It is {job.state}: {job.message}")
    if place is not None:
        parts.append(f"It is number {place.position} of {place.waiting} in the order.")
    if told is not None and told.start is not None and found:
        parts.append(f"It is expected to start in {_between(told.start, told.make_ms)}.")
    if told is not None and told.end is not None:
        verb = "end" if running is not None or job.state in HELD else "be done"
        parts.append(f"It is expected to {verb} in {_between(told.end, told.make_ms)}.")
    return " ".join(parts)


def _between(span: Span, now_ms: int) -> str:
    expected, earliest, latest = (
        duration((moment - now_ms) / 1000) for moment in (span.expected_ms, span.earliest_ms, span.latest_ms)
    )
    return f"{expected} ({earliest} to {latest})"
