"""`tuneforge top` beside a real scheduler: one frame, a live picture that a key ends, a scheduler that goes away."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from click.testing import CliRunner

from tests.support.event_loop import on_loop
from tests.support.scheduling import Stage, staged
from tuneforge.cli.app import cli
from tuneforge.cli.top_scene import Gathering, Scene
from tuneforge.client import Client


async def played(stage: Stage) -> None:
    """Lets one job run for twenty steps, and another one wait behind it."""
    await stage.trainer.register(stage.address)
    await stage.create("runs")
    held = await stage.trainer.started()
    await stage.trainer.emit(held, 20)
    await stage.create("waits")
    await stage.trainer.until(lambda: held.acks and held.acks[-1] == 20)
    await stage.trainer.beat(stage.address)
    assert stage.scheduler is not None
    await stage.scheduler.foresight.round()


@on_loop
async def test_one_frame_shows_all_of_it(tmp_path: Path) -> None:
    """Into a pipe one frame is printed: node, running job with its loss and curve, and why the other one waits."""
    async with staged(tmp_path) as stage:
        await played(stage)
        asked = ["--scheduler", stage.address, "--project", "p", "top", "--once", "--width", "150"]
        found = await asyncio.to_thread(CliRunner().invoke, cli, asked)
        assert found.exit_code == 0, found.output
        lines = found.output.splitlines()
        assert "nodes 1/1  slots 1/1  running 1  waiting 1" in lines[0]
        (runs,) = [line for line in lines if line.startswith("runs")]
        assert all(part in runs for part in ("RUNNING", "20/100", "0.05", "█"))
        (waits,) = [line for line in lines if line.startswith("waits")]
        assert "1 job holds 1 of the 1 slots" in waits
        assert any(line.startswith("p ") and "100%" in line for line in lines)  # its share of the usage


@on_loop
async def test_nobody_answers_is_one_clear_line(tmp_path: Path) -> None:
    """Without a scheduler one frame cannot be had: an error and no traceback."""
    asked = ["--scheduler", "127.0.0.1:1", "top", "--once"]
    found = await asyncio.to_thread(CliRunner().invoke, cli, asked)
    assert found.exit_code == 1
    assert "the scheduler at 127.0.0.1:1" in found.output
    assert "Traceback" not in found.output


@asynccontextmanager
async def relay(stage: Stage) -> AsyncIterator[str]:
    """Serves one address that leads to the scheduler wherever it is; while it is away nothing is answered."""

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65_536):
                target.write(piece)
                await target.drain()
        target.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not stage.up.is_set():
            writer.close()
            return
        host, _, port = stage.address.rpartition(":")
        theirs, ours = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, ours), pump(theirs, writer))

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@on_loop
async def test_a_restart_of_the_scheduler_is_survived(tmp_path: Path) -> None:
    """While it is away the picture stays and says since when; when it is back, the picture is new."""
    async with staged(tmp_path) as stage, relay(stage) as address:
        await played(stage)
        with Client(scheduler=address, project="p", patience_s=1.0) as client:
            gathering = Gathering(client, address)
            before = await asyncio.to_thread(gathering.gather)
            assert (before.problem, len(before.jobs), len(before.nodes)) == ("", 2, 1)
            await stage.stop()
            away = await asyncio.to_thread(gathering.gather)
            assert address in away.problem
            assert (away.jobs, away.problem_since) == (before.jobs, away.time)
            later = await asyncio.to_thread(gathering.gather)
            assert later.problem_since == away.time
            await stage.start()
            back = later
            while back.problem:
                back = await asyncio.to_thread(gathering.gather)
            assert back.problem == ""
            assert [job.id for job in back.jobs] == [job.id for job in before.jobs]
            await stage.cancel("waits")
            await until_told(gathering, lambda scene: [job.id for job in scene.jobs] == ["runs"])
            await asyncio.to_thread(gathering.close)


async def until_told(gathering: Gathering, holds: Callable[[Scene], bool]) -> Scene:
    """Looks again each time that the stream has told something, until something holds; returns that moment."""
    while True:
        gathering.live.seen.clear()
        scene = await asyncio.to_thread(gathering.gather)
        if holds(scene) and gathering.live.view is not None:
            return scene
        await asyncio.to_thread(gathering.live.seen.wait, 1)


@on_loop
async def test_the_picture_lives_from_what_is_told(tmp_path: Path) -> None:
    """Steps come by the stream, and nothing is asked for their sake; it may have begun while nobody answered."""
    async with staged(tmp_path) as stage, relay(stage) as address:
        await stage.stop()
        with Client(scheduler=address, project="p", patience_s=0.2) as client:
            gathering = Gathering(client, address, asks_every_s=3600.0)
            assert (await asyncio.to_thread(gathering.gather)).problem
            await asyncio.to_thread(gathering.live.seen.wait, 20)
            await stage.start()
            await played(stage)

            def is_told(_: Scene) -> bool:
                entries = gathering.live.view.entries if gathering.live.view is not None else {}
                return [(each.step, each.position) for _, each in sorted(entries.items())] == [(20, 0), (0, 1)]

            await until_told(gathering, is_told)
            first = await asyncio.to_thread(gathering.gather)  # of the queue that was told last
            assert [job.step for job in first.running] == [20]
            await stage.trainer.emit(stage.trainer.held["projects/p/jobs/runs/attempts/1"], 5)
            later = await until_told(gathering, lambda scene: [job.step for job in scene.running] == [25])
            assert later.nodes is first.nodes
            assert [progress.step for progress in later.progress.values()] == [25]
            await stage.cancel("waits")
            last = await until_told(gathering, lambda scene: not scene.waiting)
            assert last.nodes is not first.nodes
            await asyncio.to_thread(gathering.close)


@on_loop
async def test_a_key_ends_the_live_picture(tmp_path: Path) -> None:
    """On a terminal it draws until `q`, leaves the terminal as it was, and ends well."""
    async with staged(tmp_path) as stage:
        await played(stage)
        command = [sys.executable, "-m", "tuneforge.cli", "--scheduler", stage.address, "--project", "p", "top"]
        said, code = await asyncio.to_thread(_typed, command, until="0.05", key="q")
        assert code == 0
        assert "waits" in said
        assert "\x1b[?25h" in said[-40:]  # the cursor is shown again


def _typed(command: list[str], *, until: str, key: str) -> tuple[str, int]:
    """Runs a command on a terminal, presses a key when a word has been shown, and returns all output and the code."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    said, has_typed, give_up_at = "", False, time.monotonic() + 100
    while time.monotonic() < give_up_at:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        said += piece.decode(errors="replace")
        if until in said and not has_typed:
            has_typed = True
            os.write(ours, key.encode())
    os.close(ours)
    return said, process.wait()
