"""What an operator does to the queue of the project: limits while the faults happen, a hold, none of it in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from services.grpckit.errors import ServiceError
from services.scheduler.queues.budgets import NO_BUDGET, Budget
from services.scheduler.queues.limits import DEFAULT_LIMITS, Limits
from services.scheduler.queues.periods import Period
from services.scheduler.store import queues as queue_store
from services.scheduler.store.tables import jobs
from services.scheduler.store.transaction import Transaction
from tests.support.chaos.world.script import Rule, Wish
from tests.support.chaos.world.users import ask

if TYPE_CHECKING:
    from tests.support.chaos.world.world import World


def begin_ruled(world: World, rule: Rule) -> None:
    """Sets the limits before anything happens; the day of the budget ends when the rule says."""
    if rule.device_s:
        world.clock_ms = 12 * 86_400_000 - round(rule.day_ends_s * 1000)
    with world.disk.connection.begin():
        queue_store.keep(Transaction(world.disk.connection, world.clock_ms), "p", _limits(rule, 1))


def _limits(rule: Rule, revision: int) -> Limits:
    budget = Budget(device_ms=rule.device_s * 1000, period=Period.DAY) if rule.device_s else NO_BUDGET
    return Limits(max_jobs=rule.max_jobs, budget=budget, revision=revision)


async def rule_queue(world: World, rule: Rule) -> None:
    """Holds the queue for a while, and takes its limits away in the end.

    What the budget has paused is resumed then, for the next day may be far away by a clock that jumps.
    """
    begin, end = rule.paused_s
    await asyncio.sleep(begin)
    if end:
        await _set(world, replace(_limits(rule, 2), is_paused=True))
        await asyncio.sleep(end - begin)
        await _set(world, _limits(rule, 3))
    await asyncio.sleep(max(0.0, rule.day_ends_s + 4.0 - end))
    world.is_ruled = False
    await _set(world, replace(DEFAULT_LIMITS, revision=4))
    while True:
        with world.disk.connection.begin():
            paused = list(world.disk.connection.execute(_PAUSED).scalars())
        for job in paused:
            await ask(world, Wish(asyncio.get_running_loop().time(), "resume", job))
        await asyncio.sleep(5.0)


_PAUSED = select(jobs.c.job_id).where(jobs.c.state == "PAUSED").order_by(jobs.c.number)


async def _set(world: World, limits: Limits) -> None:
    def keep(tx: Transaction) -> None:
        # Said again after an answer that was lost, it is the same: the revision says which change it is.
        if queue_store.find(tx.connection, "p").revision < limits.revision:
            queue_store.keep(tx, "p", limits)

    while True:
        try:
            await world.to_scheduler(lambda scheduler: scheduler.ledger.write(keep))
        except ServiceError:
            await asyncio.sleep(0.4)
            continue
        world.note(f"the queue has change {limits.revision}")
        return
