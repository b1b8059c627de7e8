"""What the scheduler adds to `/metrics`: how the loop saw the world last, and who watches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import Gauge

from services.grpckit.database import Database
from services.scheduler.broadcast import Broadcast
from services.scheduler.foresight.promises import UNKNOWN, Event, Outcome
from services.scheduler.foresight.service import Foresight
from services.scheduler.jobs import TERMINAL, JobState
from services.scheduler.observation import Observation
from services.scheduler.queues.metrics import show_projects
from services.scheduler.reconcile import Reconciler

_LEADS = Gauge("tuneforge_scheduler_is_leader", "1 while this process leads, 0 while it stands by")
_JOBS = Gauge("tuneforge_scheduler_jobs", "Jobs that have not ended, by state", ["state"])
_NODES = Gauge("tuneforge_scheduler_nodes", "Known nodes, by state", ["state"])
_OUTBOX = Gauge("tuneforge_scheduler_publications_waiting", "Results that wait to be registered")
_UNCLOSED = Gauge("tuneforge_scheduler_attempts_open", "Attempts that run, or whose node does not know that they ended")
_LOST = Gauge(
    "tuneforge_scheduler_lost_device_seconds_total", "Device-seconds lost since the beginning, by cause", ["cause"]
)
_SAVED = Gauge(
    "tuneforge_scheduler_saved_device_seconds_total", "Device-seconds of stopped or lost attempts that checkpoints kept"
)
_PREEMPTIONS = Gauge("tuneforge_scheduler_preemptions_total", "How often jobs gave way since the beginning")
_WATCHERS = Gauge("tuneforge_scheduler_watchers", "Open watches of jobs")
_PROMISES = Gauge(
    "tuneforge_scheduler_forecasts", "Promises of when jobs start and end that are kept", ["event", "outcome"]
)
_KEPT = Gauge(
    "tuneforge_scheduler_forecasts_kept_ratio", "Share of the newest decided promises that came true", ["event"]
)
_OFF = Gauge(
    "tuneforge_scheduler_forecasts_median_ratio", "Real over expected wait of the newest decided promises", ["event"]
)


def show(reconciler: Reconciler, broadcast: Broadcast, foresight: Foresight) -> None:
    """Lets `/metrics` look at a scheduler; the newest one of a process is shown."""

    def count(test: Callable[[Observation], float]) -> float:
        return 0 if reconciler.seen is None else test(reconciler.seen)

    for state in JobState:
        if state not in TERMINAL:
            _JOBS.labels(state=str(state)).set_function(partial(count, partial(_jobs_in, state)))
    for name in ("READY", "UNREACHABLE", "DRAINING"):
        _NODES.labels(state=name).set_function(partial(count, partial(_nodes_in, name)))
    _OUTBOX.set_function(partial(count, lambda seen: len(seen.publications)))
    _UNCLOSED.set_function(partial(count, lambda seen: len(seen.attempts)))
    _LOST.labels(cause="preemption").set_function(partial(count, lambda seen: seen.work.lost_preempted_ms / 1000))
    _LOST.labels(cause="fault").set_function(partial(count, lambda seen: seen.work.lost_faults_ms / 1000))
    _SAVED.set_function(partial(count, lambda seen: seen.work.saved_ms / 1000))
    _PREEMPTIONS.set_function(partial(count, lambda seen: seen.work.preemptions))
    _WATCHERS.set_function(lambda: broadcast.watchers)
    show_projects(lambda: reconciler.seen)
    _show_forecasts(foresight)


def show_lead(database: Database) -> None:
    """Lets `/metrics` tell whether the scheduler over a database leads; on SQLite it always does."""
    _LEADS.set_function(lambda: float(database.is_leading and not database.is_displaced))


def _show_forecasts(foresight: Foresight) -> None:
    def count(key: tuple[Event, Outcome]) -> float:
        return foresight.outcomes.get(key, 0)

    def kept(event: Event) -> float:
        return foresight.qualities.get(event, UNKNOWN).kept_share

    def off(event: Event) -> float:
        return foresight.qualities.get(event, UNKNOWN).median_ratio

    for event in Event:
        for outcome in Outcome:
            _PROMISES.labels(event=str(event), outcome=str(outcome)).set_function(partial(count, (event, outcome)))
        _KEPT.labels(event=str(event)).set_function(partial(kept, event))
        _OFF.labels(event=str(event)).set_function(partial(off, event))


def _jobs_in(state: JobState, seen: Observation) -> int:
    return sum(job.state is state for job in seen.jobs)


def _nodes_in(state: str, seen: Observation) -> int:
    return sum(("DRAINING" if node.drain and node.state == "READY" else node.state) == state for node in seen.nodes)
