"""Which process is a worker: pid, start and boot together, and a zombie is dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.trainer import adoption
from services.trainer.adoption import NOBODY, ProcessEnd, ProcessIdentity
from services.trainer.folders import create_json, read_json


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session and lives until its input is closed."""
    command = [sys.executable, "-c", "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout
        process.stdout.read(1)
        yield process
        process.kill()


def _identity(pid: int) -> ProcessIdentity:
    found = adoption.identify(pid)
    assert found is not None
    return found


def test_living_process_is_known_again(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """An identity that was written to disk names the same process later."""
    path = tmp_path / "worker.json"
    assert create_json(path, _identity(child.pid).to_json())
    content = read_json(path)
    assert content is not None
    assert adoption.is_alive(ProcessIdentity.from_json(content))


def test_another_start_or_boot_is_another_process(child: subprocess.Popen[bytes]) -> None:
    """The same pid with another start time, or of another boot, is not the worker."""
    identity = _identity(child.pid)
    assert not adoption.is_alive(replace(identity, start_ticks=identity.start_ticks + 1))
    assert not adoption.is_alive(replace(identity, boot_id="another"))
    assert not adoption.kill_session(replace(identity, start_ticks=identity.start_ticks + 1))
    assert not adoption.signal_worker(replace(identity, boot_id="another"), signal.SIGKILL)
    assert child.poll() is None


def test_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    """A process that has ended and was not collected counts as dead."""
    identity = _identity(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert not adoption.is_alive(identity)
    assert adoption.open_pidfd(identity) is None


def test_nobody_is_never_alive() -> None:
    """The stand-in for a worker that never was is no process."""
    assert not adoption.is_alive(NOBODY)
    assert not adoption.kill_session(NOBODY)


async def _ends(identity: ProcessIdentity, kill: bool) -> bool:
    told = asyncio.Event()
    with ProcessEnd(identity, told.set) as process:
        assert process.has_ended is not kill
        if kill:
            assert adoption.kill_session(identity)
            await told.wait()
        return process.has_ended


def test_end_of_a_process_is_told(child: subprocess.Popen[bytes]) -> None:
    """The loop hears of the end of a process that is not its child by way of a descriptor, and of one long dead."""
    identity = _identity(child.pid)
    assert asyncio.run(_ends(identity, kill=True))
    assert asyncio.run(_ends(identity, kill=False))


def test_end_is_told_without_pidfd(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no such descriptors the process is looked at instead."""

    def missing(pid: int) -> int:
        raise OSError(38, "function not implemented")

    monkeypatch.setattr("services.trainer.adoption.os.pidfd_open", missing)
    assert asyncio.run(_ends(_identity(child.pid), kill=True))


def test_only_one_owner(tmp_path: Path) -> None:
    """Of several who claim an attempt exactly one succeeds, and its name stays."""
    path = tmp_path / "worker.json"
    claims = [create_json(path, {"pid": number}) for number in range(3)]
    assert claims == [True, False, False]
    assert read_json(path) == {"pid": 0}
    assert [entry.name for entry in tmp_path.iterdir()] == ["worker.json"]
