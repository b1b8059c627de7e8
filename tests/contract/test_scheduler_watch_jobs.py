"""`WatchJobs` over real sockets: a snapshot, then the newest state of each job, over restarts and at any pace."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.scheduler.store import removal
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.principals import of, tokens_file
from tests.support.scheduling import Stage, staged, tiny_spec, with_timing
from tuneforge import Client, JobChangeKind, JobState, WatchOptions
from tuneforge.v1 import jobs_pb2, nodes_pb2, scheduler_pb2, watching_pb2

pytestmark = EACH_DATABASE

ADDED = watching_pb2.JOB_CHANGE_KIND_ADDED
CHANGED = watching_pb2.JOB_CHANGE_KIND_CHANGED
ENDED = watching_pb2.JOB_CHANGE_KIND_ENDED
OUTSIDE = watching_pb2.JOB_CHANGE_KIND_OUTSIDE
END_STATES = {jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED}


def watch_jobs(stage: Stage, **fields: Any) -> Any:
    """Opens a watch of many jobs."""
    return stage.stub.WatchJobs(watching_pb2.WatchJobsRequest(**{"parent": "projects/p", **fields}))


class Reader:
    """A client that keeps what it is told, opens its watch again when it ends, and checks that nothing comes twice."""

    def __init__(self, stage: Stage, chance: random.Random | None = None, **fields: Any) -> None:
        self.stage = stage
        self.chance = chance
        self.fields = fields
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.kinds: list[tuple[str, int]] = []
        self.token = ""
        self.opened = 0
        self.has_snapshot = False

    def take(self, message: watching_pb2.WatchJobsResponse) -> None:
        """Keeps what a message says."""
        for job in message.snapshot.jobs:
            assert job.name not in self.jobs, "a snapshot has each job once, and none that was told before"
            self.jobs[job.name] = job
        self.has_snapshot |= message.snapshot.is_last
        for change in message.changes.changes:
            name = change.job.name
            self.kinds.append((name.rpartition("/")[2], change.kind))
            if change.kind == OUTSIDE:
                self.jobs.pop(name, None)
                continue
            known = self.jobs.get(name)
            assert known is None or known.latest_job_seq < change.job.latest_job_seq, "no state comes twice"
            self.jobs[name] = change.job
        assert message.resume_token
        self.token = message.resume_token

    async def read_until(self, enough: Any) -> None:
        """Reads one stream until a test of this reader is true."""
        stream = watch_jobs(self.stage, resume_token=self.token, **self.fields)
        while not enough():
            self.take(await stream.read())
        stream.cancel()

    async def follow(self, wanted: Iterable[str]) -> None:
        """Watches, with breaks, until all wanted jobs have ended."""
        names = {f"projects/p/jobs/{each}" for each in wanted}
        while not all(name in self.jobs and self.jobs[name].state in END_STATES for name in names):
            await self.stage.up.wait()
            self.opened += 1
            leave_after = self.chance.choice([1, 3, 1000]) if self.chance else 1000
            stream = watch_jobs(self.stage, resume_token=self.token, **self.fields)
            try:
                async for message in stream:
                    self.take(message)
                    leave_after -= 1
                    if leave_after == 0 or message.HasField("end"):
                        break
                    if all(name in self.jobs and self.jobs[name].state in END_STATES for name in names):
                        break
            except grpc.aio.AioRpcError as error:
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                    raise
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            finally:
                stream.cancel()


@on_loop
async def test_snapshot_comes_in_pages_and_changes_follow(tmp_path: Path) -> None:
    """The jobs that are there come in pages, by age; then each one that is added, changes and ends."""
    async with staged(tmp_path) as stage:
        for number in range(5):
            await stage.create(f"j{number}")
        stream = watch_jobs(stage, max_batch=2)
        pages = [await stream.read() for _ in range(3)]
        assert [len(page.snapshot.jobs) for page in pages] == [2, 2, 1]
        assert [page.snapshot.is_last for page in pages] == [False, False, True]
        assert pages[0].snapshot.jobs[0] == await stage.stored("j0")
        await stage.create("j5")
        await stage.pause("j1")
        await stage.cancel("j2")
        told: list[tuple[str, int]] = []
        while len(told) < 3:
            told += [(each.job.name[-2:], each.kind) for each in (await stream.read()).changes.changes]
        assert told == [("j5", ADDED), ("j1", CHANGED), ("j2", ENDED)]
        stream.cancel()


@on_loop
async def test_filters_tell_what_leaves_them(tmp_path: Path) -> None:
    """Only jobs of the wanted states and labels are told; one that leaves a state is told once, without its content."""
    async with staged(tmp_path) as stage:
        await stage.create("a", labels={"team": "x"})
        await stage.create("b", labels={"team": "y"})
        queued = Reader(stage, filter=jobs_pb2.JobFilter(states=[jobs_pb2.JOB_STATE_QUEUED], labels={"team": "x"}))
        await queued.read_until(lambda: queued.has_snapshot)
        assert list(queued.jobs) == ["projects/p/jobs/a"]
        await stage.cancel("b")
        await stage.pause("a")
        await queued.read_until(lambda: queued.kinds)
        assert queued.kinds == [("a", OUTSIDE)]
        assert queued.jobs == {}
        await stage.resume("a")
        await queued.read_until(lambda: queued.jobs)
        assert queued.kinds[-1] == ("a", CHANGED)


@on_loop
async def test_removed_job_is_told(tmp_path: Path) -> None:
    """A job that is removed is told as OUTSIDE, and a later snapshot lacks it."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        await stage.cancel("a")
        reader = Reader(stage)
        await reader.read_until(lambda: reader.has_snapshot)
        assert stage.scheduler is not None
        await stage.scheduler.ledger.write(lambda tx: removal.begin(tx, 1))
        await reader.read_until(lambda: reader.kinds)
        assert reader.kinds == [("a", OUTSIDE)]
        assert not (await watch_jobs(stage).read()).snapshot.jobs


@on_loop
async def test_late_reader_gets_the_newest_state_once(tmp_path: Path) -> None:
    """Who comes back late is given each job once, as it is now, and is told that changes in between were left out."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        reader = Reader(stage)
        await reader.read_until(lambda: reader.has_snapshot)
        for _ in range(4):
            await stage.pause("a")
            await stage.resume("a")
        stream = watch_jobs(stage, resume_token=reader.token)
        message = await stream.read()
        (change,) = message.changes.changes
        assert change.job == await stage.stored("a")
        assert change.is_merged
        await stage.pause("a")
        (change,) = (await stream.read()).changes.changes
        assert not change.is_merged
        stream.cancel()


@on_loop
async def test_a_change_that_a_newcomer_reads_first_is_told_to_all(tmp_path: Path) -> None:
    """Who waits is woken by it all the same, and does not wait for the next heartbeat."""
    async with staged(tmp_path, timing=with_timing(feed_pause_s=0.5, watch_heartbeat_s=3600)) as stage:
        waiting = watch_jobs(stage)
        assert (await waiting.read()).snapshot.is_last
        await stage.create("a")
        assert [each.job.name[-1] for each in (await waiting.read()).changes.changes] == ["a"]
        await stage.create("b")
        newcomer = watch_jobs(stage)
        assert [each.name[-1] for each in (await newcomer.read()).snapshot.jobs] == ["a", "b"]
        assert [each.job.name[-1] for each in (await waiting.read()).changes.changes] == ["b"]
        waiting.cancel()
        newcomer.cancel()


@on_loop
async def test_token_moves_on_without_a_match(tmp_path: Path) -> None:
    """A bookmark comes after a silence, and its token stands behind what was not asked for."""
    async with staged(tmp_path, timing=with_timing(watch_heartbeat_s=0.05)) as stage:
        stream = watch_jobs(stage, filter=jobs_pb2.JobFilter(labels={"team": "x"}))
        first = await stream.read()
        assert first.snapshot.is_last
        await stage.create("other")
        message = await stream.read()
        while message.resume_token == first.resume_token:
            message = await stream.read()
        assert message.HasField("bookmark")
        stream.cancel()


@on_loop
async def test_bad_requests_are_refused(tmp_path: Path) -> None:
    """Tokens of another filter, too large batches and unknown states are refused before the first message."""
    async with staged(tmp_path) as stage:
        token = (await watch_jobs(stage).read()).resume_token
        other = jobs_pb2.JobFilter(labels={"a": "b"})
        for fields in ({"resume_token": "x"}, {"resume_token": token, "filter": other}):
            error = await refusal(watch_jobs(stage, **fields).read(), "INVALID_ARGUMENT")
            assert error.reason == "INVALID_RESUME_TOKEN"
        error = await refusal(watch_jobs(stage, max_batch=1001).read(), "INVALID_ARGUMENT")
        assert error.fields[0].field == "max_batch"
        error = await refusal(
            watch_jobs(stage, filter=jobs_pb2.JobFilter(states=[jobs_pb2.JobState.ValueType(99)])).read(),
            "INVALID_ARGUMENT",
        )
        assert error.fields[0].field == "filter.states"


@on_loop
async def test_drain_ends_the_stream_with_a_good_token(tmp_path: Path) -> None:
    """A scheduler that shuts down says so, and the next start goes on after that message."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        stream = watch_jobs(stage)
        reader = Reader(stage)
        reader.take(await stream.read())
        stopping = asyncio.create_task(stage.stop())
        last = await stream.read()
        assert last.end.reason == watching_pb2.WATCH_END_REASON_DRAINING
        reader.take(last)
        await stopping
        await stage.start()
        await stage.cancel("a")
        await reader.read_until(lambda: reader.kinds)
        assert reader.kinds == [("a", ENDED)]


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_missed_over_restarts(tmp_path: Path, seed: int) -> None:
    """Restarts of the scheduler and readers that leave: each ends up with every job as it is, nothing told twice."""
    chance = random.Random(seed)

    @on_loop
    async def run() -> None:
        async with staged(tmp_path, trainer={"slots": 3}) as stage:
            await stage.trainer.register(stage.address)
            names = [f"j{number}" for number in range(6)]
            readers = [Reader(stage, chance, max_batch=chance.choice([0, 1, 2])) for _ in range(4)]
            async with asyncio.TaskGroup() as group:
                for reader in readers:
                    group.create_task(reader.follow(names))
                for number, name in enumerate(names):
                    await stage.create(name)
                    attempt = await stage.trainer.started(number + 1)
                    await stage.trainer.emit(attempt, chance.randint(1, 30))
                    if number % 2:
                        await stage.restart()
                        await stage.trainer.beat(stage.address)
                    await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
            now = {f"projects/p/jobs/{name}": await stage.get(name) for name in names}
            for reader in readers:
                assert reader.jobs == now
            assert sum(reader.opened for reader in readers) > 4

    run()


@on_loop
async def test_sdk_follows_all_jobs_over_a_restart(tmp_path: Path) -> None:
    """`client.jobs.watch_all` yields what is there, goes on over a restart by itself, and from a cursor later."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        client = Client(scheduler=stage.address, project="p")
        watch = client.jobs.watch_all(options=WatchOptions(silence_s=5.0))
        first = await asyncio.to_thread(next, watch)
        assert (first.kind, first.name) == (JobChangeKind.PRESENT, "projects/p/jobs/a")
        await stage.create("b", labels={"team": "x"})
        added = await asyncio.to_thread(next, watch)
        assert (added.kind, added.name[-1]) == (JobChangeKind.ADDED, "b")
        assert added.job is not None
        assert added.job.labels == {"team": "x"}
        assert watch.has_snapshot
        watch.close()
        await stage.cancel("b")
        with client.jobs.watch_all(cursor=watch.cursor) as later:
            ended = await asyncio.to_thread(next, later)
        assert ended.kind is JobChangeKind.ENDED
        assert ended.state is JobState.CANCELLED
        client.close()


@on_loop
async def test_command_prints_a_line_for_each_change(tmp_path: Path) -> None:
    """`jobs watch --all` shows the jobs and their changes until Ctrl-C, and refuses a job together with --all."""
    async with staged(tmp_path) as stage:
        await stage.create("a")
        command = [sys.executable, "-m", "tuneforge.cli", "--project", "p", "--scheduler", stage.address]
        process = await asyncio.create_subprocess_exec(
            *command, "jobs", "watch", "--all", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()).decode().split()[:3] == ["present", "a", "QUEUED"]
        await stage.cancel("a")
        assert (await process.stdout.readline()).decode().split()[:3] == ["ended", "a", "CANCELLED"]
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert process.returncode == 130
        assert "the jobs go on" in errors.decode()
        refused = await asyncio.create_subprocess_exec(
            *command, "jobs", "watch", "a", "--all", stderr=asyncio.subprocess.PIPE
        )
        assert "name a JOB, or give --all" in (await refused.communicate())[1].decode()


@on_loop
async def test_only_own_projects_are_told(tmp_path: Path) -> None:
    """`projects/-` means the projects that the caller may use, for jobs and for the queue; another one is refused."""
    tokens = tokens_file(tmp_path, {"root": ["admin"], "guest": ["viewer"]}, projects={"guest": ["q"]})
    async with staged(tmp_path / "data", tokens_file=tokens) as stage:
        for project in "pq":
            request = scheduler_pb2.CreateJobRequest(parent=f"projects/{project}", job_id="a", spec=tiny_spec())
            await stage.stub.CreateJob(request, metadata=of("root"))
        everything = watching_pb2.WatchJobsRequest(parent="projects/-")
        for name, expected in (("root", ["p", "q"]), ("guest", ["q"])):
            stream: Any = stage.stub.WatchJobs(everything, metadata=of(name))
            first = await stream.read()
            assert [job.name.split("/")[1] for job in first.snapshot.jobs] == expected
        queue: Any = stage.stub.WatchQueue(watching_pb2.WatchQueueRequest(parent="projects/-"), metadata=of("guest"))
        assert {entry.job for entry in (await queue.read()).news.entries} <= {"projects/q/jobs/a"}
        queue.cancel()
        for stream in (  # a project of others
            stage.stub.WatchJobs(watching_pb2.WatchJobsRequest(parent="projects/p"), metadata=of("guest")),
            stage.stub.WatchQueue(watching_pb2.WatchQueueRequest(parent="projects/p"), metadata=of("guest")),
        ):
            assert (await refusal(stream.read(), "PERMISSION_DENIED")).reason == "PERMISSION_DENIED"
