"""`python -m services`: ready together, stopped together, refused with one clear line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.launcher import StartFailed
from tests.support.suite import new_suite

ROOT = Path(__file__).parents[2]


@contextmanager
def launched(data: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the launcher until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services", "--data", str(data), "--port", "0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Returns the lines of a process' output up to one that has a text."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the launcher ended: {lines} {process.stderr.read() if process.stderr else ''}")


def running_below(data: Path) -> list[psutil.Process]:
    """Returns the processes that were started with a data folder, zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TUNEFORGE_DATA") == str(data):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM the launcher ends with 0 and none of its processes is left."""
    with launched(tmp_path) as process:
        lines = read_until(process, "Ctrl-C")
        assert [line.split()[0] for line in lines[:4]] == ["registry", "scheduler", "trainer", "inference"]
        assert len(running_below(tmp_path)) >= 4
        process.send_signal(number)
        assert process.wait(60) == 0
    assert running_below(tmp_path) == []


def test_kill_of_the_launcher_leaves_nothing(tmp_path: Path) -> None:
    """When the launcher itself is killed, its services end by themselves."""
    with launched(tmp_path) as process:
        read_until(process, "Ctrl-C")
        services = running_below(tmp_path)
        process.kill()
        _, alive = psutil.wait_procs(services, timeout=60)
        assert alive == []


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """A port in use is named in one line, exit code 78, and no other service is left running."""
    suite = new_suite(tmp_path)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", suite.ports["scheduler"]))
        taken.listen()
        with pytest.raises(StartFailed, match=str(suite.ports["scheduler"])) as caught:
            suite.start()
    assert caught.value.exit_code == 78
    assert caught.value.service == "scheduler"
    assert "Traceback" not in str(caught.value)
    assert running_below(tmp_path) == []


def test_a_data_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A second suite over the same data folder is refused with exit code 78 and says which folder."""
    first, second = new_suite(tmp_path), new_suite(tmp_path)
    try:
        first.start("registry")
        with pytest.raises(StartFailed, match="registry") as caught:
            second.start("registry")
        assert caught.value.exit_code == 78
        assert first.first_exit() is None
    finally:
        first.stop()


def test_a_service_that_dies_ends_the_launcher(tmp_path: Path) -> None:
    """When one service dies, the launcher says which and stops the others."""
    with launched(tmp_path) as process:
        read_until(process, "Ctrl-C")
        victim = next(each for each in running_below(tmp_path) if "services.inference" in " ".join(each.cmdline()))
        os.kill(victim.pid, signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "inference ended" in process.stderr.read()
    assert running_below(tmp_path) == []
