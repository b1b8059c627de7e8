"""Checks of one job's log: nothing missing, nothing twice, and the story that it tells is the job's. Pure.

log.readable   every chunk is a batch of events that covers the numbers of its row
log.dense      events have the numbers 1, 2, ... without gap or repeat, up to the job's newest
log.record     the hash chain over them gives the head that the job keeps
log.attempts   of each part of an attempt the log has the events 1 to the high-water mark, each once, in order
state.legal    changes of state follow on one another, each is legal, and the last one is the job's state
state.final    nothing follows on a terminal state
result.once    the job succeeded once at most
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.scheduler.doctor.finding import Finding
from services.scheduler.jobs import TERMINAL, TRANSITIONS, JobState
from services.scheduler.wire.logged import Logged, logged
from tuneforge.records import first_head, next_head


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A job's log and what the job says of it."""

    job: str
    state: JobState
    latest_seq: int
    record_head: bytes
    chunks: Sequence[tuple[int, int, bytes]]
    """First number, last number and payload of each chunk, in order."""
    marks: Mapping[tuple[int, int], int]
    """High-water mark of each part, by attempt and rank."""
    thinned_seq: int = 0
    """Events up to this one were thinned out by policy: of them just the order is checked."""
    removed: int = 0
    """How many of them are gone."""
    thinned_head: bytes = b""
    """Head of the chain after event `thinned_seq`."""


def check(log: Log) -> Iterator[Finding]:
    """Yields what is wrong with a log."""
    events: list[Logged] = []
    for first, last, payload in log.chunks:
        try:
            found = list(logged(payload))
        except ValueError as error:
            yield Finding(rule="log.readable", subject=log.job, problem=f"events {first} to {last}: {error}")
            continue
        if last > log.thinned_seq and [event.job_seq for event in found] != list(range(first, last + 1)):
            numbers = [event.job_seq for event in found]
            problem = f"the chunk of events {first} to {last} has the events {numbers}"
            yield Finding(rule="log.readable", subject=log.job, problem=problem)
        events += found
    numbers = [event.job_seq for event in events]
    old = [number for number in numbers if number <= log.thinned_seq]
    is_whole = len(old) == log.thinned_seq - log.removed and old == sorted(set(old))
    if not is_whole or numbers[len(old) :] != list(range(log.thinned_seq + 1, log.latest_seq + 1)):
        yield Finding(rule="log.dense", subject=log.job, problem=_holes(numbers, log))
        return
    yield from _record(log, events)
    yield from _attempts(log, events)
    yield from _story(log, [event for event in events if event.target])


def _holes(numbers: Sequence[int], log: Log) -> str:
    wanted = set(range(log.thinned_seq + 1, log.latest_seq + 1))
    missing, extra = sorted(wanted - set(numbers)), sorted(set(numbers) - wanted)
    repeated = sorted(number for number, count in Counter(numbers).items() if count > 1)
    thinned = f", of those up to {log.thinned_seq} all but {log.removed}" if log.thinned_seq else ""
    return (
        f"it should have the events {log.thinned_seq + 1} to {log.latest_seq}{thinned}: {len(missing)} are missing "
        f"{missing[:5]}, {len(extra)} are others {extra[:5]}, repeated {repeated[:5]}"
    )


def _record(log: Log, events: Sequence[Logged]) -> Iterator[Finding]:
    head = log.thinned_head if log.thinned_seq else first_head(log.job)
    for event in events:
        if event.job_seq > log.thinned_seq:
            head = next_head(head, event.encoded)
    if events and head != log.record_head:
        problem = f"its events give {head.hex()}, the job keeps {log.record_head.hex()}"
        yield Finding(rule="log.record", subject=log.job, problem=problem)


def _attempts(log: Log, events: Sequence[Logged]) -> Iterator[Finding]:
    seen: dict[tuple[int, int], list[int]] = {part: [] for part in log.marks}
    for event in events:
        if event.attempt:
            seen.setdefault((event.attempt, event.node_rank), []).append(event.seq)
    for (attempt, rank), numbers in sorted(seen.items()):
        mark = log.marks.get((attempt, rank), 0)
        is_right = numbers == list(range(1, mark + 1))
        if log.removed:
            is_right = numbers == sorted(set(numbers)) and max(numbers, default=0) <= mark
        if not is_right:
            problem = (
                f"of rank {rank} the log has {len(numbers)} events that end with {numbers[-3:]}, the mark is {mark}"
            )
            yield Finding(rule="log.attempts", subject=f"{log.job}/attempts/{attempt}", problem=problem)


def _story(log: Log, changes: Sequence[Logged]) -> Iterator[Finding]:
    before = ""
    for change in changes:
        if before in TERMINAL:
            problem = f"event {change.job_seq} makes it {change.target} after it had ended as {before}"
            yield Finding(rule="state.final", subject=log.job, problem=problem)
        legal = not before or change.target in TRANSITIONS[JobState(before)]
        if change.source != before or not legal:
            problem = f"event {change.job_seq} goes from {change.source or 'nothing'} to {change.target} in {before}"
            yield Finding(rule="state.legal", subject=log.job, problem=problem)
        before = change.target
    if before and before != log.state:
        problem = f"its last change is to {before}, the job is {log.state}"
        yield Finding(rule="state.legal", subject=log.job, problem=problem)
    successes = [change.job_seq for change in changes if change.target == JobState.SUCCEEDED]
    if len(successes) > 1:
        problem = f"it succeeded {len(successes)} times, by the events {successes}"
        yield Finding(rule="result.once", subject=log.job, problem=problem)
