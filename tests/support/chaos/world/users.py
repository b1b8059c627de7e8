"""What users ask of the scheduler, again and again under one request id until they have an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

from services.grpckit.errors import ServiceError, invalid_fields
from services.scheduler import dependencies
from services.scheduler.records import Needs
from services.scheduler.service import Scheduler
from services.scheduler.store.transaction import Transaction
from services.scheduler.storing import store
from services.scheduler.verbs import Call
from tests.support.chaos.world.script import Wish
from tests.unit.test_scheduler_store import new_job
from tuneforge.names import JobName

if TYPE_CHECKING:
    from tests.support.chaos.world.world import World

_PASSING = {"PEER_UNAVAILABLE", "DATABASE_UNAVAILABLE"}


async def serve_wish(world: World, wish: Wish) -> None:
    """Asks at its time until there is an answer; a paused job is resumed in the end."""
    await asyncio.sleep(wish.at_s)
    world.asked.setdefault(wish.job, set()).add(wish.verb)
    if wish.verb == "create":
        after = world.story.jobs[wish.job].after
        while after and after not in world.acknowledged and after not in world.refused:  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.5)
        if await ask(world, wish):
            world.acknowledged.setdefault(wish.job, set())
        else:
            world.refused.add(wish.job)
        return
    while wish.job not in world.acknowledged:  # virtual seconds
        if wish.job in world.refused:
            return
        await asyncio.sleep(0.5)
    if await ask(world, wish):
        world.acknowledged[wish.job].add(wish.verb)
    if wish.verb == "pause":
        await asyncio.sleep(7.0)
        # A request of its own: under the id of an earlier one it would be answered from memory, and change nothing.
        resume = replace(wish, verb="resume", at_s=asyncio.get_running_loop().time())
        while not await ask(world, resume) and not _is_over(world, wish.job):  # noqa: ASYNC110 - virtual seconds
            await asyncio.sleep(2.0)


def _is_over(world: World, job: str) -> bool:
    world.look()
    seen = world.seen[f"projects/p/jobs/{job}"]
    return seen.state in {"SUCCEEDED", "FAILED", "CANCELLED"}


async def ask(world: World, wish: Wish) -> bool:
    """Returns whether it was done; False: it was refused."""
    while True:
        try:
            await world.to_scheduler(lambda scheduler: _verb(scheduler, world, wish))
        except ServiceError as error:
            if error.reason in _PASSING:
                await asyncio.sleep(0.4)
                continue
            world.note(f"{wish.verb} {wish.job}: {error.reason}")
            return False
        world.note(f"{wish.verb} {wish.job}: done")
        return True


def _verb(scheduler: Scheduler, world: World, wish: Wish) -> Awaitable[bytes]:
    name = JobName("p", wish.job)
    ours = scheduler.servicer._parts.verbs
    request_id = f"{wish.verb} {wish.job} {wish.at_s}"
    call = Call(actor="local", project="p", method=wish.verb, request_id=request_id, body=wish.job.encode())
    match wish.verb:
        case "cancel":
            return ours.cancel(name, "", call)
        case "pause":
            return ours.pause(name, "", call)
        case "resume":
            return ours.resume(name, call)
    script = world.story.jobs[wish.job]
    new = replace(new_job(name), needs=Needs(nodes=script.nodes), lost_after_ms=4000)

    if not script.after:
        return ours.storing.store(new, call)

    def make(tx: Transaction) -> bytes:
        waits = dependencies.look_up(tx.connection, "p", [f"projects/p/jobs/{script.after}"])
        if waits.problems:
            raise invalid_fields(waits.problems)
        return store(tx, replace(new, waits_for=waits.unmet))[0]

    return ours._change(call, make)
