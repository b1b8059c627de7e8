"""What a decision looks at: the state of everything at one moment, without any way to change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.jobs import JobState
from services.scheduler.planning.queue import Project, Rules
from services.scheduler.queues.accounts import Account, SpentJob
from services.scheduler.records import ActiveJob, Attempt, Node, Work
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.store.outbox import Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a decision looks at, from one moment."""

    now_ms: int
    """By the database's clock."""
    jobs: tuple[ActiveJob, ...]
    """Jobs that have not ended, oldest first."""
    attempts: tuple[Attempt, ...]
    """Attempts that may still run or whose node does not yet know that their end is kept."""
    nodes: tuple[Node, ...]
    publications: tuple[Publication, ...] = ()
    """Results to be registered."""
    blob_holds: tuple[BlobHold, ...] = ()
    """What the registry is to be told of checkpoints, one thing of each."""
    dependencies: Mapping[int, tuple[str, JobState]] = field(default_factory=dict)
    """Name and state of the jobs that BLOCKED ones wait for, by number."""
    reported: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    """By node: the attempts that it named last, and whether each still runs. A node not heard since the start lacks."""
    strays: tuple[tuple[str, Attempt], ...] = ()
    """Attempts that a node (its id) names although their end is closed, or that belong to another node."""
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Weight, decayed usage with what runs, quotas and holds, by id; one that is missing has the defaults."""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    """What `projects` was made from, as people see it."""
    spent: tuple[SpentJob, ...] = ()
    """Jobs whose budget, or whose project's, is spent."""
    work: Work = field(default_factory=Work)
    """Device time lost and saved since the beginning, of all jobs."""
    rules: Rules = field(default_factory=Rules)
    """How jobs are ordered and when running ones give way."""
