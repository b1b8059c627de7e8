"""How projects stand, on `/metrics`: one line a project and figure, of the loop's newest look."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.scheduler.jobs import HELD
from services.scheduler.observation import Observation
from services.scheduler.queues.standing import WAITING, Standing, count_jobs, standings

_OF_PROJECTS = {
    "weight": "Weight of a project's queue",
    "share": "Part of the usage of all projects with jobs, 0 to 1",
    "target_share": "Part that the weight gives among the projects with jobs, 0 to 1",
    "usage_device_seconds": "Device time that was given, half of it forgotten each day",
    "devices_held": "Devices that attempts hold",
    "jobs_waiting": "Jobs that wait",
    "jobs_running": "Jobs that hold devices",
    "is_held": "1 where nothing new starts: the queue is paused, device-hours or the budget are spent",
}
_SPENT = {
    "device_seconds": "Device time that was given since the beginning",
    "energy_joules": "Energy that was taken since the beginning, as far as it is known",
}


class _Projects(Collector):
    """One line a project and figure, of the newest look; projects come and go, so that no gauge is kept for them."""

    def __init__(self) -> None:
        self.look: Callable[[], Observation | None] = lambda: None

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of the newest scheduler's last look."""
        seen = self.look()
        found = [] if seen is None else standings(seen.accounts, count_jobs(seen.jobs))
        for name, text in _OF_PROJECTS.items():
            gauge = GaugeMetricFamily(f"tuneforge_scheduler_project_{name}", text, labels=["project"])
            for each in found:
                gauge.add_metric([each.project], _figures(each, seen)[name])
            yield gauge
        for name, text in _SPENT.items():
            counter = CounterMetricFamily(f"tuneforge_scheduler_project_{name}", text, labels=["project"])
            for each in found:
                spent = each.account.spent
                counter.add_metric([each.project], spent.device_ms / 1000 if name == "device_seconds" else spent.joules)
            yield counter


def _figures(standing: Standing, seen: Observation | None) -> dict[str, float]:
    account = standing.account
    project = None if seen is None else seen.projects.get(standing.project)
    return {
        "weight": account.limits.weight,
        "share": standing.share,
        "target_share": standing.target,
        "usage_device_seconds": account.usage_ms / 1000,
        "devices_held": account.held.devices,
        "jobs_waiting": standing.jobs_in(WAITING),
        "jobs_running": standing.jobs_in(HELD),
        "is_held": float(project is not None and bool(project.held)),
    }


_PROJECTS = _Projects()
REGISTRY.register(_PROJECTS)


def show_projects(look: Callable[[], Observation | None]) -> None:
    """Lets `/metrics` look at the projects of a scheduler; the newest one of a process is shown.

    Args:
        look: Gives what the loop saw last; None: nothing yet.
    """
    _PROJECTS.look = look
