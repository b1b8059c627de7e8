"""What pins a job once those that it waits for have succeeded: admission without a registry to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from services.scheduler.records import Job, Needs, NewJob
from tests.support.chaos.world.network import away
from tests.unit.test_scheduler_store import new_job

if TYPE_CHECKING:
    from tests.support.chaos.world.world import World

T = TypeVar("T")


class SimAdmission:
    """Admits a job as it was made.

    Args:
        world: Says what the job asks for, and whether the registry is away.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    async def readmit(self, job: Job) -> NewJob:
        """Returns the job as it is admitted now."""
        if self._world.registry.is_away:
            raise away("the registry")
        script = self._world.story.jobs[job.name.job]
        return replace(new_job(job.name), needs=Needs(nodes=script.nodes), lost_after_ms=4000)


class NoHolding:
    """Nothing is held in this world."""

    async def make(self, holder: str, names: Collection[str], write: Callable[[], Awaitable[T]]) -> T:
        """Writes at once."""
        del holder, names
        return await write()
