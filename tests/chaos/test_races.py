"""Verbs that race the end of a run, over real sockets and the real loop: exactly one outcome, whoever was quicker.

`make test` runs a few of each on both databases; `make chaos` a thousand cancels against the end, and 250 of the rest.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.scheduler.doctor import examine
from services.scheduler.jobs import JobState
from services.scheduler.store import jobs as job_store
from tests.support.chaos.record import FULL, SEED, keep
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import LIVE, HeldAttempt
from tests.support.scheduling import Stage, staged
from tuneforge.names import JobName
from tuneforge.v1 import jobs_pb2, nodes_pb2, trainer_pb2

SLICE = {"sqlite": 30, "postgres": 8}
OTHERS = {"sqlite": 8, "postgres": 4}
SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def obey(stage: Stage) -> None:
    """The node ends what it is asked to stop, after a moment, unless it has ended by itself."""
    chance = random.Random(SEED)
    while True:
        await stage.trainer.until(lambda: list(_to_stop(stage)))
        await asyncio.sleep(chance.choice((0.0, 0.005)))
        for attempt in list(_to_stop(stage)):
            is_cancel = trainer_pb2.STOP_MODE_CANCEL in attempt.stop_modes
            state = nodes_pb2.ATTEMPT_STATE_CANCELLED if is_cancel else nodes_pb2.ATTEMPT_STATE_INTERRUPTED
            await stage.trainer.end(attempt, state)


def _to_stop(stage: Stage) -> list[HeldAttempt]:
    return [held for held in stage.trainer.held.values() if held.stops and held.status.state in LIVE]


async def finish(stage: Stage, attempt: HeldAttempt) -> None:
    """The run ends well, if it may still."""
    if attempt.status.state in LIVE:
        await stage.trainer.end(attempt, SUCCEEDED)


async def accepted(call: Awaitable[Any]) -> bool:
    """Returns whether a verb was taken; a refusal must be for the job's state."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        return False
    return True


async def cancel(stage: Stage, job: str) -> bool:
    """Cancels, and says whether that was taken."""
    return await accepted(stage.cancel(job))


async def two_cancels(stage: Stage, job: str) -> bool:
    """Two callers cancel at once: both hear the same."""
    first, second = await asyncio.gather(accepted(stage.cancel(job)), accepted(stage.cancel(job)))
    assert first or not second or (await stage.get(job)).state == jobs_pb2.JOB_STATE_CANCELLED
    return first or second


async def pause(stage: Stage, job: str) -> bool:
    """Pauses, and resumes what was paused."""
    taken = await accepted(stage.pause(job))
    if taken:
        while not await accepted(stage.resume(job)):
            if (await stage.get(job)).version.version:
                break  # it had ended well before it could leave
            await asyncio.sleep(0.002)
    return False


async def preempt(stage: Stage, job: str) -> bool:
    """The loop asks the run to give way, as it does for a job of a higher class."""
    assert stage.scheduler is not None
    ledger = stage.scheduler.ledger

    def ask(tx: Any) -> None:
        found = job_store.find(tx.connection, JobName("p", job))
        assert found is not None
        step = job_store.Step(
            to=JobState.PREEMPTING, reason="PREEMPT", message="It gives way.", sources=frozenset({JobState.RUNNING})
        )
        job_store.advance(tx, found.number, step)

    await ledger.write(ask)
    return False


async def race(stage: Stage, number: int, verb: Callable[[Stage, str], Awaitable[bool]], chance: random.Random) -> str:
    """Runs one job whose end races a verb; returns its last state."""
    job = f"r{number}"
    await stage.create(job)
    await stage.trainer.until(lambda: f"projects/p/jobs/{job}/attempts/1" in stage.trainer.held)
    attempt = stage.trainer.held[f"projects/p/jobs/{job}/attempts/1"]
    if chance.random() < 0.8:
        await stage.trainer.emit(attempt, 2)
        if chance.random() < 0.5:
            await stage.until_state("RUNNING", job)

    async def late(run: Awaitable[Any]) -> Any:
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.003, 0.01, 0.03)))
        return await run

    taken, _ = await asyncio.gather(late(verb(stage, job)), late(finish(stage, attempt)))
    while True:  # whatever attempt follows ends well
        found = await stage.get(job)
        state = jobs_pb2.JobState.Name(found.state).removeprefix("JOB_STATE_")
        if state in {"SUCCEEDED", "CANCELLED", "FAILED"}:
            break
        newest = stage.trainer.held.get(f"projects/p/jobs/{job}/attempts/{found.attempt}")
        if found.attempt > 1 and newest is not None:
            await finish(stage, newest)
        await asyncio.sleep(0.005)
    is_published = f"projects/p/jobs/{job}" in stage.registry.published
    assert state == ("CANCELLED" if taken else "SUCCEEDED"), f"{job}, seed {SEED}"
    assert is_published == (not taken), f"{job}, seed {SEED}"
    return state


async def run_races(folder: Path, count: int, verb: Callable[[Stage, str], Awaitable[bool]]) -> Counter[str]:
    """Runs races one after another on one scheduler and asks the doctor at their end."""
    chance = random.Random(SEED)
    async with staged(folder) as stage:
        await stage.trainer.register(stage.address)
        obeying = asyncio.create_task(obey(stage))
        ends: Counter[str] = Counter()
        for number in range(count):
            ends[await race(stage, number, verb, chance)] += 1
            if number % 20 == 19:
                await stage.trainer.beat(stage.address)
        obeying.cancel()
        await asyncio.wait({obeying})
        assert stage.scheduler is not None
        findings = await stage.scheduler.ledger.read(examine)
    assert not findings, findings
    return ends


@pytest.mark.parametrize("verb", [cancel, two_cancels, pause, preempt])
@on_loop
async def test_a_race_has_one_outcome(verb: Any, tmp_path: Path, each_database: str) -> None:
    """A verb that was taken counts, one that was refused changes nothing, and a result is published once or never."""
    count = SLICE[each_database] if verb is cancel else OTHERS[each_database]
    ends = await run_races(tmp_path, count, verb)
    assert ends.total() == count


@pytest.mark.chaos
@pytest.mark.skipif(not FULL, reason="make chaos runs them")
def test_all_races(tmp_path: Path) -> None:
    """A thousand cancels against the end of a run, and 250 of each other race."""
    facts: dict[str, Any] = {"violations": 0}
    for verb, count in ((cancel, 1000), (two_cancels, 250), (pause, 250), (preempt, 250)):
        ends = asyncio.run(run_races(tmp_path / verb.__name__, count, verb))
        facts |= {f"{verb.__name__}_{state.lower()}": found for state, found in ends.items()}
    keep("races", "Verbs against the end of a run, over real sockets.", facts)
