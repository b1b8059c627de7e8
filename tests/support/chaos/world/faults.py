"""What each kind of fault does to the world, and how it passes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.chaos.world.script import Fault

if TYPE_CHECKING:
    from tests.support.chaos.world.world import World

_MOMENTS = {
    "dies before a commit": "before",
    "dies inside a transaction": "inside",
    "dies after a commit": "after",
}


async def strike(world: World, fault: Fault) -> None:
    """Waits for its time, happens, and passes."""
    await asyncio.sleep(fault.at_s)
    world.note(f"fault: {fault.kind} (n{fault.node + 1}, {fault.lasts_s} s, {fault.count})")
    address = f"n{fault.node + 1}:1"
    if fault.kind in {"partition", "deaf", "mute", "flaky"}:
        await _disturb(world, address, fault)
    elif fault.kind in {"node crash", "node wiped", "agent killed", "freeze", "worker lost", "lie"}:
        await _hurt(world, address, fault)
    else:
        await _shake(world, fault)


async def _disturb(world: World, address: str, fault: Fault) -> None:
    link = world.network.links[address]
    link.hears = fault.kind not in {"partition", "deaf"}
    link.is_heard = fault.kind not in {"partition", "mute"}
    link.loss = 0.3 if fault.kind == "flaky" else 0.0
    await asyncio.sleep(fault.lasts_s)
    link.hears = link.is_heard = True
    link.loss = 0.0


async def _hurt(world: World, address: str, fault: Fault) -> None:
    node = world.nodes[address]
    match fault.kind:
        case "worker lost":
            node.lose_workers()
        case "lie":
            node.lies = {f"projects/p/jobs/j1/attempts/{fault.count}", "projects/p/jobs/never/attempts/1"}
            await asyncio.sleep(fault.lasts_s)
            node.lies = set()
        case "freeze":
            node.running.clear()
            await asyncio.sleep(fault.lasts_s)
            node.running.set()
        case _:
            node.is_up = False
            if fault.kind == "node crash":
                node.lose_workers()
            await asyncio.sleep(fault.lasts_s)
            node.wipe() if fault.kind == "node wiped" else node.restart_agent()
            node.is_up = True


async def _shake(world: World, fault: Fault) -> None:
    match fault.kind:
        case "scheduler killed":
            world.kill("is killed", back_in_s=fault.lasts_s)
        case "clock forward":
            world.clock_ms += fault.count * 1000
        case "clock backward":
            world.clock_ms -= fault.count * 1000
        case "registry away":
            world.registry.is_away = True
            await asyncio.sleep(fault.lasts_s)
            world.registry.is_away = False
        case "disk refuses":
            world.disk.is_broken = True
            await asyncio.sleep(min(fault.lasts_s, 3.0))
            world.disk.is_broken = False
        case _:
            world.dying = (_MOMENTS[fault.kind], fault.count)
