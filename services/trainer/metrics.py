"""What the trainer adds to `/metrics`."""

import asyncio
import time
from collections.abc import Iterable

from prometheus_client import REGISTRY, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.grpckit.logging import get_logger
from services.trainer.agent import Agent
from services.trainer.folders import DataFolder
from services.trainer.job_metrics import NodeJobs
from services.trainer.launching import WorkerLauncher
from services.trainer.node_cache import cached_bytes

_log = get_logger(__name__)
_SLOTS = Gauge("tuneforge_trainer_slots", "Attempts that the node runs at once")
_LIVING = Gauge("tuneforge_trainer_attempts", "Attempts that have not ended")
_HELD = Gauge("tuneforge_trainer_attempts_held", "Attempts on the node, those that wait for acknowledgement too")
_CACHED = Gauge("tuneforge_trainer_cache_bytes", "Models and rows that the node keeps by digest")
_CACHE_LIMIT = Gauge("tuneforge_trainer_cache_limit_bytes", "Most bytes that it keeps of them")
_CACHE_EVERY_S = 30.0
"""Seconds between two measurements of the cache; a large one is measured less often, for 1 % of the time at most."""
_WARM = Gauge("tuneforge_trainer_fork_server_warm", "1 while a worker can be started at once")


class _NewestJobs(Collector):
    """Shows the jobs of the newest node of this process."""

    jobs: NodeJobs | None = None

    def describe(self) -> Iterable[Metric]:
        """Names nothing beforehand: there is no node yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics of its jobs."""
        return self.jobs.collect() if self.jobs is not None else ()


_JOBS = _NewestJobs()
REGISTRY.register(_JOBS)


def show(agent: Agent, launcher: WorkerLauncher) -> None:
    """Lets `/metrics` look at a node before it starts; the newest node of a process is shown."""
    agent.observer = _JOBS.jobs = NodeJobs()
    _SLOTS.set_function(lambda: agent.node().capacity.slots)
    _LIVING.set_function(lambda: sum(view.end is None for view in agent.node().attempts))
    _HELD.set_function(lambda: len(agent.node().attempts))
    _CACHE_LIMIT.set_function(lambda: agent.cache_bytes)
    _WARM.set_function(lambda: launcher.is_warm)


async def measure_cache(folder: DataFolder) -> None:
    """Measures for ever what a node's cache holds, beside the event loop: it may have very many files."""
    while True:
        began = time.monotonic()
        try:
            _CACHED.set(await asyncio.to_thread(cached_bytes, folder.cache))
        except OSError as error:  # a disk that fails now may answer later
            _log.warning("the cache is measured later", problem=str(error))
        await asyncio.sleep(max(_CACHE_EVERY_S, 100 * (time.monotonic() - began)))
