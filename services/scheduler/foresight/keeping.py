"""Promises from their making to their outcome: what a forecast promises, and what became of open ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.scheduler.foresight.forecast import Outlook
from services.scheduler.foresight.promises import Event, Outcome, Promise, Quality, Source, outcome_of, widened
from services.scheduler.jobs import JobState
from services.scheduler.store.forecasts import Reality

ADOPT_MS = 3_600_000
"""A job that is created so soon after its simulation, of the same spec, is the simulated one."""


def promises_of(
    outlook: Outlook,
    now_ms: int,
    qualities: Mapping[Event, Quality],
    *,
    job: int | None,
    project: str,
    source: Source,
    digest: str = "",
) -> list[Promise]:
    """Returns what a forecast promises: its start and its end, where they are foreseen."""
    found = []
    for event, raw in ((Event.START, outlook.start), (Event.END, outlook.end)):
        if raw is not None:
            told = widened(raw, now_ms, qualities.get(event, Quality()))
            found.append(
                Promise(
                    job=job,
                    project=project,
                    event=event,
                    source=source,
                    make_ms=now_ms,
                    raw=raw,
                    told=told,
                    digest=digest,
                )
            )
    return found


def settled(
    promises: Iterable[Promise], realities: Mapping[int, Reality], now_ms: int
) -> dict[int, tuple[int | None, Outcome]]:
    """Returns what became of promises, by id; those of which nothing new is known are left out.

    Args:
        promises: OPEN ones, and LATE ones that have not come yet.
        realities: How far their jobs are, by number.
        now_ms: This moment.
    """
    found: dict[int, tuple[int | None, Outcome]] = {}
    for each in promises:
        if each.job is None:
            if now_ms - each.make_ms > ADOPT_MS:
                found[each.id] = None, Outcome.VOID  # it was never created
            continue
        real = realities.get(each.job)
        outcome = (None, Outcome.VOID) if real is None else _settled(each, real, now_ms)
        if outcome is not None:
            found[each.id] = outcome
    return found


def _settled(promise: Promise, real: Reality, now_ms: int) -> tuple[int | None, Outcome] | None:
    came_ms = _came(promise, real)
    if came_ms is not None:
        return came_ms, outcome_of(promise.told, came_ms)
    if real.state in {JobState.PAUSED, JobState.PAUSING, JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED}:
        return None, Outcome.VOID  # somebody's wish or a fault, no wrong forecast
    if real.state is JobState.SUCCEEDED:
        return None, Outcome.VOID  # it started before the promise that it would
    if promise.outcome is Outcome.OPEN and now_ms > promise.told.latest_ms:
        return None, Outcome.LATE
    return None


def _came(promise: Promise, real: Reality) -> int | None:
    if promise.event is Event.END:
        return real.end_ms if real.state is JobState.SUCCEEDED else None
    return next((moment for moment in real.placed_ms if moment >= promise.make_ms), None)


def adopted(promises: Iterable[Promise], created: Mapping[int, tuple[str, str, int]]) -> dict[int, int]:
    """Returns which jobs simulated ones have become: the number of the job by id of the promise.

    Args:
        promises: Open ones.
        created: Project, digest of the spec and time of creation of new jobs, by number.
    """
    found: dict[int, int] = {}
    for each in promises:
        if each.job is not None or not each.digest:
            continue
        for number, (project, digest, create_ms) in created.items():
            is_it = (project, digest) == (each.project, each.digest)
            if is_it and 0 <= create_ms - each.make_ms <= ADOPT_MS:
                found[each.id] = number
                break
    return found
