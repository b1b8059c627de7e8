"""Which jobs a caller means, as a pure rule. `store/job_filters.py` says the same in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.scheduler.jobs import JobState
from services.scheduler.records import Job


class JobOrder(StrEnum):
    """Order of a list."""

    NEWEST = "NEWEST"
    OLDEST = "OLDEST"
    ENDED_LAST = "ENDED_LAST"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What applies to the jobs that are meant; nothing set: to all. Times are milliseconds since 1970."""

    states: frozenset[JobState] = frozenset()
    """One of these; empty: any."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of these; an empty value stands for any."""
    search: str = ""
    """Text in the id or the creator, upper or lower case."""
    output_model: str = ""
    base: str = ""
    """A version, or a model for all of its versions."""
    dataset: str = ""
    """A version of a data set, or a data set for all of its versions."""
    created_from_ms: int | None = None
    created_before_ms: int | None = None
    ended_from_ms: int | None = None
    ended_before_ms: int | None = None
    priorities: frozenset[int] = frozenset()
    """One of these classes, as `Job.priority` has them; empty: any."""
    sweep: str = ""
    """Trials of it."""

    @property
    def is_empty(self) -> bool:
        """Whether it leaves out no job."""
        return self == JobFilter()


def matches(job: Job, wanted: JobFilter) -> bool:
    """Returns whether a job is one of those that are meant."""
    return (
        (not wanted.states or job.state in wanted.states)
        and all(key in job.labels and value in ("", job.labels[key]) for key, value in wanted.labels.items())
        and _has_text(job, wanted.search)
        and wanted.output_model in ("", job.output_model)
        and _is_of(job.base.version if job.base is not None else None, wanted.base)
        and _is_of(job.train.version, wanted.dataset)
        and (not wanted.priorities or job.priority in wanted.priorities)
        and (not wanted.sweep or (job.trial or "").startswith(f"{wanted.sweep}/trials/"))
        and _is_within(job.create_ms, wanted.created_from_ms, wanted.created_before_ms)
        and _is_within(job.end_ms, wanted.ended_from_ms, wanted.ended_before_ms)
    )


def lowered(text: str) -> str:
    """Returns a text in lower case as databases do it: ASCII alone, so that all of them agree."""
    return "".join(each.lower() if each.isascii() else each for each in text)


def _has_text(job: Job, text: str) -> bool:
    return lowered(text) in lowered(job.name.job) or lowered(text) in lowered(job.creator)


def _is_of(version: str | None, wanted: str) -> bool:
    return not wanted or (version is not None and (version == wanted or version.startswith(f"{wanted}/versions/")))


def _is_within(moment_ms: int | None, first_ms: int | None, before_ms: int | None) -> bool:
    if first_ms is None and before_ms is None:
        return True
    return (
        moment_ms is not None
        and (first_ms is None or moment_ms >= first_ms)
        and (before_ms is None or moment_ms < before_ms)
    )
