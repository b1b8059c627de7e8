"""`WatchQueue` over real sockets: the queue as it stands, then what has changed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.scheduling import Stage, staged, with_timing
from tuneforge import Client, JobState
from tuneforge.v1 import nodes_pb2, scheduler_pb2, watching_pb2

QUICK = with_timing(board_pause_s=0.02)


def watch_queue(stage: Stage, **fields: Any) -> Any:
    """Opens a watch of the queue."""
    return stage.stub.WatchQueue(watching_pb2.WatchQueueRequest(**{"parent": "projects/p", **fields}))


@on_loop
async def test_queue_is_shown_whole_then_as_it_changes(tmp_path: Path) -> None:
    """A snapshot in pages has jobs with their place, shares and nodes; then come changes, and what has left."""
    async with staged(tmp_path, timing=QUICK) as stage:
        await stage.trainer.register(stage.address)
        for name in "abc":
            await stage.create(name)
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        stream = watch_queue(stage, max_batch=2)
        entries: dict[str, watching_pb2.QueueEntry] = {}
        nodes: dict[str, watching_pb2.QueueNode] = {}
        is_first, gone = True, False
        while not gone:
            news = (await stream.read()).news
            assert news.begins_snapshot == is_first
            is_first = False
            assert len(news.entries) <= 2
            entries.update((each.job[-1], each) for each in news.entries)
            nodes.update((each.name, each) for each in news.nodes)
            gone = "projects/p/jobs/a" in news.left_jobs
            if news.is_last and len(entries) == 3 and entries["a"].nodes and attempt.status.state != 3:
                assert entries["a"].position == 0
                assert {entries[name].position for name in "bc"} == {1, 2}
                assert nodes["nodes/n1"].taken == 1
                await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.stub.DrainNode(scheduler_pb2.DrainNodeRequest(name="nodes/n1"))
        while nodes["nodes/n1"].state != nodes_pb2.NODE_STATE_DRAINING:
            nodes.update((each.name, each) for each in (await stream.read()).news.nodes)
        stream.cancel()
        error = await refusal(watch_queue(stage, max_batch=1001).read(), "INVALID_ARGUMENT")
        assert error.fields[0].field == "max_batch"


@on_loop
async def test_token_goes_on_and_a_restart_begins_anew(tmp_path: Path) -> None:
    """A token brings what is newer; at another start of the scheduler a snapshot comes again, which says so."""
    async with staged(tmp_path, timing=QUICK) as stage:
        await stage.create("a")
        stream = watch_queue(stage)
        message = await stream.read()
        while not message.news.entries:
            message = await stream.read()
        keeps = watch_queue(stage)  # somebody else looks all the time
        await keeps.read()
        stream.cancel()
        await stage.create("b")
        resumed = await watch_queue(stage, resume_token=message.resume_token).read()
        assert not resumed.news.begins_snapshot
        await stage.restart()
        again = await watch_queue(stage, resume_token=resumed.resume_token).read()
        assert again.news.begins_snapshot


@on_loop
async def test_who_comes_later_sees_what_is_there_now(tmp_path: Path) -> None:
    """After a time in which nobody looked the first message is of now, not of when the last one left."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        await stage.create("a")
        stream = watch_queue(stage)
        while not (await stream.read()).news.entries:
            pass
        stream.cancel()
        await stage.create("b")
        await stage.cancel("a")
        for _ in range(2):
            await stage.scheduler.reconciler.look()
        news = (await watch_queue(stage).read()).news
        assert [each.job for each in news.entries] == ["projects/p/jobs/b"]


@on_loop
async def test_sdk_shows_the_queue(tmp_path: Path) -> None:
    """`client.queues.watch` yields the whole queue each time that it has changed."""
    async with staged(tmp_path, timing=QUICK) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("a")
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt, 3)
        await stage.create("b")
        client = Client(scheduler=stage.address, project="p")

        def until() -> Any:
            with client.queues.watch() as views:
                for view in views:
                    entry = view.entries.get("projects/p/jobs/a")
                    if view.waiting and view.nodes and entry is not None and entry.state is JobState.RUNNING:
                        return view
            raise AssertionError("the watch has no end")

        view = await asyncio.to_thread(until)
        assert [entry.job for entry in view.waiting] == ["projects/p/jobs/b"]
        assert view.entries["projects/p/jobs/a"].nodes == ("nodes/n1",)
        assert view.shares["p"].running == 1
        client.close()


@on_loop
async def test_command_prints_who_waits(tmp_path: Path) -> None:
    """`queues watch` prints the jobs that wait, in order, and again when one has joined them."""
    async with staged(tmp_path, timing=QUICK) as stage:
        await stage.create("a")
        command = [sys.executable, "-m", "tuneforge.cli", "--project", "p", "--scheduler", stage.address]
        process = await asyncio.create_subprocess_exec(*command, "queues", "watch", stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        lines = [(await process.stdout.readline()).decode()]
        while "a" not in lines[-1].split():
            lines.append((await process.stdout.readline()).decode())
        await stage.create("b")
        while "b" not in lines[-1].split():
            lines.append((await process.stdout.readline()).decode())
        assert lines[-2].split()[:2] == ["1", "a"]
        assert lines[-1].split()[:2] == ["2", "b"]
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
