"""What `tuneforge top` shows, gathered with public calls: nodes, the queue, shares, and the figures of running jobs."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from tuneforge.cli.progress import Progress
from tuneforge.client import Client
from tuneforge.errors import PermissionDenied, TuneforgeError
from tuneforge.explanation_values import JobExplanation
from tuneforge.job_changes import JobsWatch
from tuneforge.job_filters import JobOrder
from tuneforge.job_values import Job, JobState
from tuneforge.jobs import Jobs, WatchOptions
from tuneforge.nodes import Node
from tuneforge.queue_values import Queue

Thing = TypeVar("Thing")

HELD = {JobState.STARTING, JobState.RUNNING, JobState.PAUSING, JobState.PREEMPTING, JobState.CANCELLING}
"""States in which a job has a node."""
WAITING = [JobState.BLOCKED, JobState.QUEUED, JobState.PAUSED, JobState.PUBLISHING]
LISTED_MOST = 200
"""Jobs of each list that are asked for; a terminal shows fewer."""
_JOIN_S = 2.0
"""How long a thread that reads is waited for."""
FOLLOWED_MOST = 16
"""Running jobs whose events are followed."""
EXPLAINED_MOST = 5
"""Waiting jobs that are explained, the first of the order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One moment as it is drawn."""

    time: datetime
    scheduler: str
    project: str
    nodes: tuple[Node, ...] = ()
    jobs: tuple[Job, ...] = ()
    """Jobs of the project that have not ended, newest first."""
    queues: tuple[Queue, ...] = ()
    explanations: dict[str, JobExplanation] = field(default_factory=dict)
    """Of the waiting jobs that come first, by name."""
    progress: dict[str, Progress] = field(default_factory=dict)
    """Of running jobs, by name."""
    problem: str = ""
    """Why nothing new is known; empty: all of it is of this moment."""
    problem_since: datetime | None = None

    @property
    def running(self) -> list[Job]:
        """Jobs with a node, the one that ends first at the top."""
        return sorted((job for job in self.jobs if job.state in HELD), key=lambda job: (_end(job), job.name))

    @property
    def waiting(self) -> list[Job]:
        """Jobs without a node in the order in which they are expected to start; those that are paused come last."""
        return sorted((job for job in self.jobs if job.state not in HELD), key=_turn)


def _end(job: Job) -> datetime:
    end = job.forecast.end if job.forecast is not None else None
    return end.expected if end is not None else datetime.max.replace(tzinfo=UTC)


def _turn(job: Job) -> tuple[bool, datetime, datetime, str]:
    start = job.forecast.start if job.forecast is not None else None
    expected = start.expected if start is not None else datetime.max.replace(tzinfo=UTC)
    return job.state is JobState.PAUSED, expected, job.create_time, job.name


class Follower:
    """Reads the events of one job in a thread of its own."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._lock = threading.Lock()
        self._progress = Progress(name=job.name)
        self._wanted_seq = job.latest_job_seq
        self._seq = 0
        self.caught_up = threading.Event()
        """Set once everything that was known when it began has been read."""
        options = WatchOptions(give_up_after_s=float("inf"), on_break=self._broke)
        self._watch = jobs.watch(job.name, options=options)
        self._thread = threading.Thread(target=self._run, name=f"top-{job.id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._watch:
                with self._lock:
                    self._progress.take(event)
                    self._seq = event.job_seq
                if self._seq >= self._wanted_seq:
                    self.caught_up.set()
        except (TuneforgeError, ValueError) as error:  # the channel may be closed while it is opened again
            self._broke(error)
        finally:
            self.caught_up.set()

    def _broke(self, error: Exception) -> None:
        with self._lock:
            self._progress.breaks(str(error), datetime.now(UTC))

    def picture(self) -> Progress:
        """Returns what is known of the job; later events do not change it."""
        with self._lock:
            known = self._progress
            copied = Progress(**{name: getattr(known, name) for name in known.__dataclass_fields__})
            copied.losses = list(known.losses)
            return copied

    def close(self) -> None:
        """Ends the reading."""
        self._watch.close()
        self._thread.join(timeout=_JOIN_S)


class Changes:
    """Tells, from a thread of its own, that some job has changed."""

    def __init__(self, jobs: Jobs) -> None:
        self.seen = threading.Event()
        """Set with each change; whoever has looked clears it."""
        self._watch: JobsWatch = jobs.watch_all(skip_snapshot=True, options=WatchOptions(give_up_after_s=float("inf")))
        self._thread = threading.Thread(target=self._run, name="top-changes", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for _ in self._watch:
                self.seen.set()
        except (TuneforgeError, ValueError):  # the channel may be closed while it is opened again
            return  # the picture is drawn at its pace all the same

    def close(self) -> None:
        """Ends the watch."""
        self._watch.close()
        self.seen.set()
        self._thread.join(timeout=_JOIN_S)


class Gathering:
    """Asks the scheduler again and again; what cannot be had stays as it was, and says since when."""

    def __init__(self, client: Client, scheduler: str, *, explains_every_s: float = 4.0) -> None:
        self._client = client
        self._explains_every_s = explains_every_s
        self._explained_at = float("-inf")
        self._followers: dict[str, Follower] = {}
        self.changes = Changes(client.jobs)
        self._scene = Scene(time=datetime.now(UTC), scheduler=scheduler, project=client.project)

    def gather(self) -> Scene:
        """Returns the moment: with what is new, or with why nothing is."""
        now = datetime.now(UTC)
        known = self._scene
        try:
            listed = self._client.jobs.list
            held = islice(listed(states=sorted(HELD)), LISTED_MOST)
            waiting = islice(listed(states=WAITING, order=JobOrder.OLDEST), LISTED_MOST)
            jobs = (*held, *waiting)
            nodes = _allowed(self._client.nodes.list)
            queues = _allowed(self._client.queues.list)
            explanations = self._explain(jobs)
        except TuneforgeError as error:
            since = known.problem_since or now
            self._scene = replace(known, time=now, problem=str(error), problem_since=since)
            return self._scene
        self._follow([job for job in jobs if job.state is JobState.RUNNING][:FOLLOWED_MOST])
        self._scene = Scene(
            time=now,
            scheduler=known.scheduler,
            project=known.project,
            nodes=nodes,
            jobs=jobs,
            queues=queues,
            explanations=explanations,
            progress={name: follower.picture() for name, follower in self._followers.items()},
        )
        return self._scene

    def settle(self, timeout_s: float) -> None:
        """Waits until the events that there are have been read, at most so long."""
        give_up_at = time.monotonic() + timeout_s
        for follower in self._followers.values():
            follower.caught_up.wait(max(0.0, give_up_at - time.monotonic()))

    def close(self) -> None:
        """Ends the reading of events and of changes."""
        self.changes.close()
        for follower in self._followers.values():
            follower.close()

    def _explain(self, jobs: Sequence[Job]) -> dict[str, JobExplanation]:
        """Explains the first waiting jobs now and then: an explanation costs the scheduler a run of its planner."""
        scene = Scene(time=self._scene.time, scheduler="", project="", jobs=tuple(jobs))
        wanted = {job.name for job in scene.waiting[:EXPLAINED_MOST]}
        known = {name: each for name, each in self._scene.explanations.items() if name in wanted}
        if time.monotonic() - self._explained_at < self._explains_every_s and known.keys() == wanted:
            return known
        self._explained_at = time.monotonic()
        return {name: self._client.jobs.explain(name) for name in sorted(wanted)}

    def _follow(self, running: Sequence[Job]) -> None:
        names = {job.name for job in running}
        for name in self._followers.keys() - names:
            self._followers.pop(name).close()
        for job in running:
            if job.name not in self._followers:
                self._followers[job.name] = Follower(self._client.jobs, job)


def _allowed(ask: Callable[[], Iterator[Thing]]) -> tuple[Thing, ...]:
    """Returns what the caller may see: nothing of what it may not."""
    try:
        return tuple(islice(ask(), LISTED_MOST))
    except PermissionDenied:
        return ()
