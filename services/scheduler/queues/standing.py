"""How projects stand beside each other: shares and targets, as people see them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.scheduler.jobs import HELD, JobState
from services.scheduler.queues.accounts import Account
from services.scheduler.records import ActiveJob

WANTING = HELD | {JobState.QUEUED}
"""States in which a job has devices or could: its project counts among those that share."""
WAITING = frozenset({JobState.QUEUED, JobState.BLOCKED})
"""States of jobs that wait."""

Counts = Mapping[JobState, int]
"""Jobs of a project by state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A project beside the others."""

    project: str
    account: Account
    share: float
    """Its part of the usage of all projects with jobs, 0 to 1."""
    target: float
    """The part that its weight gives it; of a project without jobs: what it would be with some."""
    counts: Counts

    def jobs_in(self, states: frozenset[JobState]) -> int:
        """Returns how many of its jobs are in some states."""
        return sum(self.counts.get(state, 0) for state in states)


def count_jobs(jobs: Iterable[ActiveJob]) -> dict[str, dict[JobState, int]]:
    """Returns how many jobs each project has, by state."""
    found: dict[str, dict[JobState, int]] = {}
    for job in jobs:
        states = found.setdefault(job.name.project, {})
        states[job.state] = states.get(job.state, 0) + 1
    return found


def standings(accounts: Mapping[str, Account], counts: Mapping[str, Counts]) -> list[Standing]:
    """Returns how projects stand, by id.

    Args:
        accounts: All projects at one moment.
        counts: Their jobs that have not ended, by state.
    """
    sharing = {name for name in accounts if any(counts.get(name, {}).get(state, 0) for state in WANTING)}
    usage = sum(accounts[name].usage_ms for name in sharing)
    weights = sum(accounts[name].limits.weight for name in sharing)
    return [
        Standing(
            project=name,
            account=account,
            share=account.usage_ms / usage if name in sharing and usage > 0 else 0.0,
            target=account.limits.weight / (weights + (0.0 if name in sharing else account.limits.weight)),
            counts=counts.get(name, {}),
        )
        for name, account in sorted(accounts.items())
    ]
