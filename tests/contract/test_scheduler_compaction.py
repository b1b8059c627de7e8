"""Logs that are thinned out: what stays, what readers are told, and that it may be interrupted anywhere."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from services.scheduler.compaction.compactor import Compactor
from services.scheduler.compaction.rules import CompactionPolicy
from services.scheduler.store import clocks, removal
from services.scheduler.store import compaction as store
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged
from tuneforge import Client, LogCompacted
from tuneforge.records import check_record
from tuneforge.v1 import events_pb2, nodes_pb2, scheduler_pb2
from tuneforge.values import RunRecord

pytestmark = EACH_DATABASE

JOB = "projects/p/jobs/j1"
POLICY = CompactionPolicy(after_s=3600.0, keep_every=10, keep_newest=20)
DAY_S = 86400.0


async def finished(stage: Stage, steps: int) -> RunRecord:
    """Runs a job to its end and returns the record that was published."""
    await stage.trainer.register(stage.address)
    await stage.create()
    attempt = await stage.trainer.started()
    for _ in range(0, steps, 90):
        await stage.trainer.emit(attempt, min(90, steps))
        await stage.trainer.until(lambda: attempt.acks and attempt.acks[-1] == len(attempt.events))
    await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
    await stage.until_state("SUCCEEDED")
    record = stage.registry.published[JOB].lineage.run_record
    return RunRecord(num_events=record.num_events, head=record.head)


def compactor(stage: Stage, policy: CompactionPolicy = POLICY) -> Compactor:
    """Returns the work over the running scheduler's database."""
    assert stage.scheduler is not None
    return Compactor(ledger=stage.scheduler.ledger, jumps=stage.scheduler.reconciler.jumps, policy=policy)


async def read(stage: Stage, **fields: Any) -> list[scheduler_pb2.WatchJobResponse]:
    """Returns all messages of a watch."""
    return [message async for message in stage.watch(**fields)]


def numbers(messages: list[scheduler_pb2.WatchJobResponse]) -> list[int]:
    """Returns the numbers of the events in messages."""
    return [event.job_seq for message in messages for event in message.events.events]


def check(record: RunRecord, messages: list[scheduler_pb2.WatchJobResponse]) -> Any:
    """Holds what was read against the record."""
    gone = next((each.compacted for each in messages if each.HasField("compacted")), None)
    batches = [(each.events.events, each.events.marks) for each in messages if each.HasField("events")]
    return check_record(
        JOB, "v", record, batches, lambda: (gone.through_job_seq, gone.head) if gone is not None else None
    )


@on_loop
async def test_old_logs_keep_what_tells_the_story(tmp_path: Path) -> None:
    """States, the end, every tenth step and the newest events stay; readers are told so; the record can be checked."""
    async with staged(tmp_path) as stage:
        record = await finished(stage, 270)
        whole = await read(stage)
        assert await compactor(stage).round() == 0, "the job has ended just now"
        stage.clock.advance(DAY_S)
        removed = await compactor(stage).round()
        assert removed > 200
        assert await compactor(stage).round() == 0
        job = await stage.get()
        assert job.compacted_job_seq == job.latest_job_seq - POLICY.keep_newest
        by_number = {event.job_seq: event for each in whole for event in each.events.events}
        for max_batch in (1, 7, 100):
            left = await read(stage, max_batch=max_batch)
            assert left[1].compacted.removed_events == removed
            assert left[1].compacted.through_job_seq == job.compacted_job_seq
            events = [event for each in left for event in each.events.events]
            assert numbers(left) == sorted(set(numbers(left)))
            assert all(event == by_number[event.job_seq] for event in events)
            assert len(events) == len(by_number) - removed
            steps = [event.step.step for event in events if event.HasField("step")]
            assert set(range(10, 271, 10)) <= set(steps)
            assert [event.state.to for event in events if event.HasField("state")][-1] == "SUCCEEDED"
            assert numbers(left)[-20:] == list(range(job.compacted_job_seq + 1, job.latest_job_seq + 1))
        found = check(record, left)
        assert (found.is_intact, found.compacted_through) == (True, job.compacted_job_seq)


@on_loop
async def test_a_clock_that_is_set_makes_no_log_older(tmp_path: Path) -> None:
    """Set forward by a day, a log of an hour still lasts an hour; before the loop has seen it and over a restart."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        await finished(stage, 270)
        await stage.scheduler.reconciler.look()
        stage.clock.advance(POLICY.after_s / 2)
        await stage.scheduler.reconciler.look()
        stage.clock.jump(DAY_S)
        assert await compactor(stage).round() == 0
        for _ in range(2):
            await stage.scheduler.reconciler.look()
        await stage.restart()
        assert await compactor(stage).round() == 0
        stage.clock.advance(POLICY.after_s / 2 + 1)
        await stage.scheduler.reconciler.look()
        assert await compactor(stage).round() > 200


@on_loop
async def test_jumps_are_kept_as_long_as_a_log_may_be_older(tmp_path: Path) -> None:
    """Each stays while a log from before it is to be thinned out, set forward or back, and goes with the next one."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        jumps = stage.scheduler.reconciler.jumps
        jumps.newest = POLICY.newest
        await set_by(stage, DAY_S)
        assert await set_by(stage, -DAY_S / 2) == [], "no log is there"
        await finished(stage, 270)
        assert await set_by(stage, DAY_S) == [DAY_S]
        assert await set_by(stage, -DAY_S / 2) == [-DAY_S / 2, DAY_S], "they are needed"
        stage.clock.advance(POLICY.after_s + 1)
        await stage.scheduler.reconciler.look()
        assert await compactor(stage).round() > 200
        stage.clock.advance(DAY_S)
        await stage.create("j2")
        await stage.cancel("j2")
        jumps.newest = 0
        await stage.scheduler.ledger.write(lambda tx: removal.begin(tx, 1))
        assert await set_by(stage, 60) == [60], "the log that is left ended after the others"


async def set_by(stage: Stage, seconds: float) -> list[float]:
    """Sets the clock, lets the loop see it, and returns the jumps that are kept, in seconds, the newest first."""
    assert stage.scheduler is not None
    await stage.scheduler.reconciler.look()
    stage.clock.jump(seconds)
    for _ in range(2):
        await stage.scheduler.reconciler.look()
    return [jump_ms / 1000 for _, jump_ms in await stage.scheduler.ledger.read(clocks.jumps)]


@on_loop
async def test_cursor_in_the_removed_part_is_refused(tmp_path: Path) -> None:
    """An old token is answered COMPACTED with the first whole number; newer ones, and those given since, are good."""
    async with staged(tmp_path) as stage:
        await finished(stage, 270)
        whole = await read(stage, max_batch=50)
        stage.clock.advance(DAY_S)
        await compactor(stage).round()
        through = (await stage.get()).compacted_job_seq
        error = await refusal(stage.watch(token=whole[2].resume_token).read(), "OUT_OF_RANGE")
        assert error.reason == "COMPACTED"
        assert error.metadata["oldest_job_seq"] == str(through + 1)
        assert numbers(await read(stage, token=whole[-1].resume_token)) == []
        left = await read(stage, max_batch=5)
        for index, message in enumerate(left):
            rest = numbers(await read(stage, token=message.resume_token))
            assert rest == numbers(left[index + 1 :]), "a reader who knows what is gone goes on in the middle"


@on_loop
async def test_sdk_marks_what_is_gone(tmp_path: Path) -> None:
    """A watch of the SDK that was left in the removed part goes on by itself, with one visible mark and no repeat."""
    async with staged(tmp_path) as stage:
        await finished(stage, 270)
        client = Client(scheduler=stage.address, project="p")

        def some() -> tuple[list[int], str]:
            watch = client.jobs.watch("j1")
            seen = [next(watch).job_seq for _ in range(40)]
            watch.close()
            return seen, watch.cursor

        seen, cursor = await asyncio.to_thread(some)
        stage.clock.advance(DAY_S)
        await compactor(stage).round()
        rest = await asyncio.to_thread(lambda: list(client.jobs.watch("j1", cursor=cursor)))
        marks = [event for event in rest if isinstance(event.payload, LogCompacted)]
        assert len(marks) == 1
        assert rest[0] is marks[0]
        later = [event.job_seq for event in rest[1:]]
        assert seen + later == sorted({*seen, *later})
        assert later[-1] == (await stage.get()).latest_job_seq
        client.close()


@on_loop
async def test_it_may_be_interrupted_at_each_commit(tmp_path: Path) -> None:
    """After each part, and after a part that was undone, the log is whole in itself and a new start goes on."""
    async with staged(tmp_path) as stage:
        record = await finished(stage, 270)
        stage.clock.advance(DAY_S)
        small = replace(POLICY, keep_newest=20)
        before, parts = store.CHUNKS_PER_PART, 0
        store.CHUNKS_PER_PART = 1
        try:
            while True:
                assert stage.scheduler is not None

                def undone(tx: Any) -> None:
                    store.thin_out_part(tx, 1, small)
                    raise KeyError("killed before the commit")

                untouched = numbers(await read(stage))
                with contextlib.suppress(KeyError):
                    await stage.scheduler.ledger.write(undone)
                assert numbers(await read(stage)) == untouched
                part = await stage.scheduler.ledger.write(lambda tx: store.thin_out_part(tx, 1, small))
                parts += 1
                await stage.restart()
                left = await read(stage, max_batch=9)
                assert len(numbers(left)) == len(untouched) - part.removed
                assert check(record, left).is_intact
                if part.is_last:
                    break
        finally:
            store.CHUNKS_PER_PART = before
        assert parts > 2


@on_loop
async def test_needed_and_broken_logs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was tampered with is left as it is, and so is that of a running job; size alone makes logs due too.

    What stays although it is due keeps no other log from its turn.
    """
    monkeypatch.setattr("services.scheduler.compaction.compactor.JOBS_PER_LOOK", 1)
    async with staged(tmp_path) as stage:
        await finished(stage, 270)
        assert stage.scheduler is not None

        def tamper(connection: Connection) -> None:
            rows = connection.execute(text("SELECT first_seq, payload FROM chunks ORDER BY first_seq")).all()
            first_seq, payload = max(rows, key=lambda row: len(row.payload))
            batch = events_pb2.EventBatch.FromString(bytes(payload))
            batch.events[1].step.loss /= 2
            change = text("UPDATE chunks SET payload = :payload WHERE first_seq = :first_seq")
            connection.execute(change, {"payload": batch.SerializeToString(), "first_seq": first_seq})

        by_size = CompactionPolicy(above_bytes=1, keep_newest=20)
        work = compactor(stage, by_size)
        await stage.create("j2")
        attempt = await stage.trainer.started(2)
        await stage.trainer.emit(attempt, 90)
        begins = "UPDATE jobs SET origin_name = {} WHERE job_id = 'j2'"
        origin = text(begins.format(f"'{JOB}/checkpoints/5'"))
        await stage.scheduler.database.write(lambda db: db.execute(origin).rowcount)
        assert await work.round() == 0, "j2 begins from a checkpoint of j1"
        await stage.scheduler.database.write(lambda db: db.execute(text(begins.format("NULL"))).rowcount)
        await stage.scheduler.database.write(tamper)
        whole = numbers(await read(stage))
        removed = await work.round()
        assert len(numbers(await read(stage))) == len(whole) - removed
        assert (await stage.get()).compacted_job_seq < (await stage.get()).latest_job_seq - 20
        assert (await stage.get("j2")).compacted_job_seq == 0
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.until_state("SUCCEEDED", "j2")
        assert await work.round() > 50
