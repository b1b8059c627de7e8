"""`WatchJob` over real sockets: replay then follow, each event once and in order, whoever is restarted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.scheduler.resume import write_token
from services.scheduler.store import jobs as job_store
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, with_timing
from tuneforge.names import JobName
from tuneforge.v1 import events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def read_all(stream: Any) -> list[scheduler_pb2.WatchJobResponse]:
    """Returns all messages of a stream."""
    messages = []
    while (message := await stream.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


def events_in(messages: list[scheduler_pb2.WatchJobResponse]) -> list[events_pb2.Event]:
    """Returns the events of messages."""
    return [event for message in messages for event in message.events.events]


def check_dense(events: list[events_pb2.Event]) -> None:
    """Checks that a whole log was seen, each event once and in order."""
    assert [event.job_seq for event in events] == list(range(1, len(events) + 1))


class Watcher:
    """A client that reopens its watch from its last token whenever it ends or breaks."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.stage = stage
        self.chance = chance
        self.events: list[events_pb2.Event] = []
        self.token = ""
        self.opened = 0

    async def run(self) -> None:
        """Watches until the job has ended."""
        while True:
            await self.stage.up.wait()
            self.opened += 1
            leave_after = self.chance.choice([1, 2, 5, 1000])
            stream = self.stage.watch(token=self.token, max_batch=self.chance.choice([0, 1, 3]))
            try:
                async for message in stream:
                    self.events.extend(message.events.events)
                    self.token = message.resume_token
                    if message.end.reason == scheduler_pb2.END_REASON_JOB_ENDED:
                        return
                    leave_after -= 1
                    if leave_after == 0:
                        break
            except grpc.aio.AioRpcError as error:
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                    raise  # CANCELLED: its channel was closed
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise  # else the stream was cancelled, not this task: its channel was closed
            finally:
                stream.cancel()


@on_loop
async def test_first_message_is_the_snapshot(tmp_path: Path) -> None:
    """A watch begins with the job as it is, whose token stands before the first event."""
    async with staged(tmp_path) as stage:
        await stage.create()
        stream = stage.watch()
        first = await stream.read()
        assert first.snapshot == await stage.stored()
        assert first.latest_job_seq == 1
        second = await stream.read()
        assert second.events.events[0].state.to == "QUEUED"
        stream.cancel()


@on_loop
async def test_ended_job_replays_and_ends(tmp_path: Path) -> None:
    """A watch of a job that has ended replays everything and ends with its state; the last token replays nothing."""
    async with staged(tmp_path) as stage:
        await stage.create()
        await stage.cancel()
        messages = await read_all(stage.watch())
        check_dense(events_in(messages))
        assert messages[-1].end.reason == scheduler_pb2.END_REASON_JOB_ENDED
        assert messages[-1].end.state == jobs_pb2.JOB_STATE_CANCELLED
        again = await read_all(stage.watch(token=messages[-1].resume_token))
        assert events_in(again) == []
        assert again[-1].end.reason == scheduler_pb2.END_REASON_JOB_ENDED


@on_loop
async def test_batches_have_the_asked_size(tmp_path: Path) -> None:
    """No message has more events than asked for; replay fills the messages up, across chunks."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        for _ in range(5):
            await stage.trainer.emit(attempt, 45)
        await stage.trainer.end(attempt, SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        whole = events_in(await read_all(stage.watch()))
        check_dense(whole)
        for size in (1, 7, 100, 1000):
            messages = await read_all(stage.watch(max_batch=size))
            counts = [len(message.events.events) for message in messages if message.HasField("events")]
            assert events_in(messages) == whole
            assert max(counts) <= size
            assert len(counts) == -(-len(whole) // size)
        error = await refusal(stage.watch(max_batch=1001).read(), "INVALID_ARGUMENT")
        assert error.fields[0].field == "max_batch"


@on_loop
async def test_quiet_watch_has_heartbeats(tmp_path: Path) -> None:
    """When nothing happens a heartbeat comes, with a token that is still good."""
    async with staged(tmp_path, timing=with_timing(watch_heartbeat_s=0.02)) as stage:
        await stage.create()
        stream = stage.watch()
        message = await stream.read()
        while not message.HasField("heartbeat"):
            message = await stream.read()
        stream.cancel()
        resumed = stage.watch(token=message.resume_token)
        assert (await resumed.read()).HasField("snapshot")
        assert (await resumed.read()).HasField("heartbeat")
        resumed.cancel()


@on_loop
async def test_bad_tokens_are_refused(tmp_path: Path) -> None:
    """A token that was not given for this job is refused, and so is one beyond the log; an unknown job is NOT_FOUND."""
    async with staged(tmp_path) as stage:
        job = await stage.create()
        other = await stage.create("j2")
        token = (await stage.watch("j2").read()).resume_token
        for bad in ("x", token, token[:-2] + "AA", "é" * 8):
            error = await refusal(stage.watch(token=bad).read(), "INVALID_ARGUMENT")
            assert error.reason == "INVALID_RESUME_TOKEN"
        assert (await refusal(stage.watch("nobody").read(), "NOT_FOUND")).reason == "NOT_FOUND"
        assert stage.scheduler is not None
        row = await stage.scheduler.ledger.read(lambda db: job_store.find(db, JobName.parse(job.name)))
        assert row is not None
        error = await refusal(stage.watch(token=write_token(row.uid, 9)).read(), "OUT_OF_RANGE")
        assert error.reason == "CURSOR_OUT_OF_RANGE"
        assert (error.metadata["oldest_job_seq"], error.metadata["newest_job_seq"]) == ("1", "1")
        assert other.state == jobs_pb2.JOB_STATE_QUEUED


@on_loop
async def test_drain_ends_watches_with_a_good_token(tmp_path: Path) -> None:
    """A scheduler that shuts down ends its watches by itself; the token goes on at the next start."""
    async with staged(tmp_path) as stage:
        await stage.create()
        stream = stage.watch()
        messages = [await stream.read(), await stream.read()]
        stopping = asyncio.create_task(stage.stop())
        messages += await read_all(stream)
        await stopping
        assert messages[-1].end.reason == scheduler_pb2.END_REASON_DRAINING
        await stage.start()
        await stage.cancel()
        rest = await read_all(stage.watch(token=messages[-1].resume_token))
        check_dense(events_in(messages) + events_in(rest))


@on_loop
async def test_slow_reader_costs_others_nothing(tmp_path: Path) -> None:
    """A reader that stops reading holds up nobody, nothing piles up for it, and it gets everything when it goes on."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        slow = stage.watch(max_batch=1)
        first = [await slow.read()]
        for _ in range(40):
            await stage.trainer.emit(attempt, 50)
        await stage.trainer.end(attempt, SUCCEEDED)
        quick = await stage.all_events()
        check_dense(quick)
        assert events_in(first + await read_all(slow)) == quick


@on_loop
async def test_repeated_deliveries_are_dropped(tmp_path: Path) -> None:
    """A trainer that sends events again, and whose streams break, adds nothing twice to the log."""
    async with staged(tmp_path, trainer={"repeat_events": 3, "cuts": [2, 5, 9, 11]}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        for _ in range(6):
            await stage.trainer.emit(attempt, 2)
        await stage.trainer.end(attempt, SUCCEEDED)
        events = await stage.all_events()
        check_dense(events)
        assert [event.seq for event in events if event.attempt] == list(range(1, 14))
        await stage.trainer.until(lambda: attempt.is_gone)
        assert attempt.acks == sorted(attempt.acks)
        assert attempt.acks[-1] == 13


@on_loop
async def test_events_are_acknowledged_after_they_are_kept(tmp_path: Path) -> None:
    """Whatever was acknowledged is in the log of the next start, even after the hardest end."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt, 4)
        await stage.trainer.until(lambda: attempt.acks)
        acked = attempt.acks[-1]
        await stage.restart()
        kept = []
        async for event in stage.events():
            kept += [event.seq] if event.attempt else []
            if len(kept) == acked:
                break
        assert kept == list(range(1, acked + 1))


@pytest.mark.parametrize("seed", range(4))
def test_each_event_is_seen_once_over_restarts(tmp_path: Path, seed: int) -> None:
    """Restarts of the scheduler, broken streams of the trainer and leaving clients: each event once, in order."""
    chance = random.Random(seed)

    @on_loop
    async def run() -> None:
        cuts = sorted(chance.sample(range(1, 120), 6))
        async with staged(tmp_path, trainer={"cuts": cuts, "repeat_events": chance.choice([0, 2])}) as stage:
            await stage.trainer.register(stage.address)
            await stage.create()
            attempt = await stage.trainer.started()
            watchers = [Watcher(stage, chance) for _ in range(3)]
            async with asyncio.TaskGroup() as group:
                for watcher in watchers:
                    group.create_task(watcher.run())
                for _ in range(5):
                    target = len(attempt.events) + chance.randint(5, 25)
                    while len(attempt.events) < target:
                        await stage.trainer.emit(attempt, chance.randint(1, 8))
                    if chance.random() < 0.5:
                        await stage.trainer.until(lambda: attempt.acks and attempt.acks[-1] >= target - 5)  # noqa: B023
                    await stage.restart()
                    await stage.trainer.beat(stage.address)
                await stage.trainer.end(attempt, SUCCEEDED)
            for watcher in watchers:
                check_dense(watcher.events)
                assert [event.seq for event in watcher.events if event.attempt] == list(
                    range(1, len(attempt.events) + 1)
                )
            assert (await stage.get()).state == jobs_pb2.JOB_STATE_SUCCEEDED
            assert sum(watcher.opened for watcher in watchers) > 3

    run()
