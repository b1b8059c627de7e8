"""Jobs that others wait for without reading their output: what may be named, and which are still to end well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.store import jobs as job_store
from tuneforge.names import InvalidName, JobName


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What a draft waits for."""

    unmet: Mapping[int, str] = field(default_factory=dict)
    """Jobs that have not ended: numbers and names."""
    problems: tuple[FieldViolation, ...] = ()


def look_up(connection: Connection, project: str, asked: Sequence[str]) -> Dependencies:
    """Returns which of the jobs have not ended, and what is wrong with the others."""
    problems: list[FieldViolation] = []
    unmet: dict[int, str] = {}
    for index, text in enumerate(asked):
        place = f"scheduling.depends_on[{index}]"
        try:
            name = JobName.parse(text)
        except InvalidName as error:
            problems.append(FieldViolation(place, f"is not a job: {error}"))
            continue
        job = job_store.find(connection, name) if name.project == project else None
        if name.project != project:
            problems.append(FieldViolation(place, f"is {text!r}: use a job of the same project, {project}"))
        elif job is None:
            problems.append(FieldViolation(place, f"is {text!r}: there is no such job; list the project's jobs"))
        elif job.state in TERMINAL and job.state is not JobState.SUCCEEDED:
            problems.append(
                FieldViolation(place, f"is {text!r}: it ended as {job.state}; wait for one that can succeed")
            )
        elif job.state is not JobState.SUCCEEDED:
            unmet[job.number] = text
    return Dependencies(unmet=unmet, problems=tuple(problems))
