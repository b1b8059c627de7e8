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
from tuneforge.job_filters import JobOrder
from tuneforge.job_values import Job, JobState
from tuneforge.jobs import Jobs, WatchOptions
from tuneforge.nodes import Node
from tuneforge.queue_values import Queue
from tuneforge.queue_watch import QueueView, QueueWatch
from tuneforge.queues import Queues

Thing = TypeVar("Thing")

HELD = {JobState.STARTING, JobState.RUNNING, JobState.PAUSING, JobState.PREEMPTING, JobState.CANCELLING}
"""States in which a job has a node."""
WAITING = [JobState.BLOCKED, JobState.QUEUED, JobState.PAUSED, JobState.PUBLISHING]
LISTED_MOST = 200
"""Jobs of each list that are asked for; a terminal shows fewer."""
_JOIN_S = 2.0
"""How long a thread that reads is waited for."""
_AGAIN_S = 2.0
"""Pause before a watch that was refused is opened again."""
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
        self.has_failed = False
        """Whether it reads no more, although the job may go on."""
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
            self.has_failed = True
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


class Live:
    """The queue as the scheduler tells it, read in a thread of its own for as long as it is not closed."""

    def __init__(self, queues: Queues) -> None:
        self.seen = threading.Event()
        """Set with each thing that is told; whoever has looked clears it."""
        self.view: QueueView | None = None
        """The newest one; None: nothing is told at the moment."""
        self._queues = queues
        self._stop = threading.Event()
        self._watch = self._open()
        self._thread = threading.Thread(target=self._run, name="top-queue", daemon=True)
        self._thread.start()

    def _open(self) -> QueueWatch:
        return self._queues.watch(options=WatchOptions(give_up_after_s=float("inf"), on_break=self._broke))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for view in self._watch:
                    self.view = view
                    self.seen.set()
            except TuneforgeError as error:  # nobody has answered since it began, or the caller may not watch
                self._broke(error)
            except ValueError:  # the channel was closed while it was opened again
                return
            self._stop.wait(_AGAIN_S)
            self._watch = self._open()

    def _broke(self, _: TuneforgeError) -> None:
        self.view = None
        self.seen.set()

    def close(self) -> None:
        """Ends the watch."""
        self._stop.set()
        self._watch.close()
        self.seen.set()
        self._thread.join(timeout=_JOIN_S)


def _shape(view: QueueView | None) -> object:
    """Returns what of a queue calls for a new look at everything: all but steps and usage, which come by themselves."""
    if view is None:
        return None
    jobs = frozenset((each.job, each.state, each.position, each.nodes) for each in view.entries.values())
    shares = frozenset((each.project, each.weight, each.hold) for each in view.shares.values())
    return jobs, shares, frozenset((each.name, each.state, each.slots) for each in view.nodes.values())


def _with_step(job: Job, view: QueueView | None) -> Job:
    told = view.entries.get(job.name) if view is not None else None
    return job if told is None else replace(job, step=told.step, total_steps=told.total_steps)


class Gathering:
    """Joins what streams tell with what is asked for when they show something new, or when they are silent.

    What cannot be had stays as it was, and says since when.

    Args:
        client: To the scheduler.
        scheduler: Its address.
        explains_every_s: Least seconds between two explanations of the same jobs.
        asks_every_s: Most seconds after which all is asked for again: forecasts and reasons drift.
    """

    def __init__(
        self, client: Client, scheduler: str, *, explains_every_s: float = 4.0, asks_every_s: float = 5.0
    ) -> None:
        self._client = client
        self._explains_every_s = explains_every_s
        self._explained_at = float("-inf")
        self._followers: dict[str, Follower] = {}
        self._asks_every_s = asks_every_s
        self._asked_at = float("-inf")
        self._shape: object = None
        """Of the queue when everything was asked for last."""
        self.live = Live(client.queues)
        self._scene = Scene(time=datetime.now(UTC), scheduler=scheduler, project=client.project)

    def gather(self) -> Scene:
        """Returns the moment: with what is new, or with why nothing is."""
        now, view, known = datetime.now(UTC), self.live.view, self._scene
        shape = _shape(view)
        is_new = shape is None or shape != self._shape or bool(known.problem)
        if is_new or time.monotonic() - self._asked_at >= self._asks_every_s:
            known = self._ask(now)
            self._shape, self._asked_at = shape, time.monotonic()
        self._scene = replace(
            known,
            time=now,
            jobs=tuple(_with_step(job, view) for job in known.jobs),
            progress={name: follower.picture() for name, follower in self._followers.items()},
        )
        return self._scene

    def _ask(self, now: datetime) -> Scene:
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
            return replace(known, problem=str(error), problem_since=since)
        self._follow([job for job in jobs if job.state is JobState.RUNNING][:FOLLOWED_MOST])
        return Scene(
            time=now,
            scheduler=known.scheduler,
            project=known.project,
            nodes=nodes,
            jobs=jobs,
            queues=queues,
            explanations=explanations,
        )

    def settle(self, timeout_s: float) -> None:
        """Waits until the events that there are have been read, at most so long."""
        give_up_at = time.monotonic() + timeout_s
        for follower in self._followers.values():
            follower.caught_up.wait(max(0.0, give_up_at - time.monotonic()))

    def close(self) -> None:
        """Ends the reading of events and of the queue."""
        self.live.close()
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
        for name in [name for name, each in self._followers.items() if name not in names or each.has_failed]:
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
