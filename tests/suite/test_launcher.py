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
from tests.support.patience import TEST_LIMIT_S
from tests.support.suite import new_suite, tiny_inputs
from tuneforge import Client

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


def service_pid(processes: list[psutil.Process], service: str) -> int:
    """Returns the process id of a service among processes."""
    return next(each.pid for each in processes if each.cmdline()[-1] == f"services.{service}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM the launcher ends with 0 and none of its processes is left."""
    with launched(tmp_path) as process:
        lines = read_until(process, "Ctrl-C")
        assert [line.split()[0] for line in lines[:4]] == ["registry", "scheduler", "trainer", "inference"]
        assert len(running_below(tmp_path)) >= 4
        process.send_signal(number)
        assert process.wait() == 0
    assert running_below(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_everything_is_ready(tmp_path: Path, number: signal.Signals) -> None:
    """A signal during the start ends it; what had just been started ends by itself."""
    with launched(tmp_path) as process:
        while len(running_below(tmp_path)) < 2:
            assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == 130
    _, alive = psutil.wait_procs(running_below(tmp_path), timeout=TEST_LIMIT_S)
    assert alive == []


def run_a_job(lines: list[str], folder: Path) -> None:
    """Submits a job that lasts, to the services that the launcher named, and returns when it trains."""
    addresses = {line.split()[0]: line.split()[1] for line in lines[:4]}
    model, rows = tiny_inputs(folder)
    with Client(**{name: addresses[name] for name in ("registry", "scheduler", "trainer", "inference")}) as client:  # type: ignore[arg-type]
        client.models.import_folder(model, "tiny")
        client.datasets.upload(rows, "animals")
        spec = {"base": {"model": "tiny/1"}, "supervised": {}, "lora": {"rank": 2}}
        spec |= {"data": {"train": {"dataset": "animals"}}, "optimization": {"max_steps": 1_000_000}}
        for event in client.jobs.create(spec).watch():
            if event.kind == "step":
                return


def test_kill_of_the_launcher_leaves_nothing(tmp_path: Path) -> None:
    """When the launcher itself is killed, its services and the worker of a running job end by themselves."""
    with launched(tmp_path) as process:
        run_a_job(read_until(process, "Ctrl-C"), tmp_path / "inputs")
        running = running_below(tmp_path)
        process.kill()
        _, alive = psutil.wait_procs(running, timeout=TEST_LIMIT_S)
        assert alive == []


def test_kill_of_the_trainer_leaves_no_worker(tmp_path: Path) -> None:
    """When the trainer is killed, the launcher ends, and the worker of a running job with it."""
    with launched(tmp_path) as process:
        run_a_job(read_until(process, "Ctrl-C"), tmp_path / "inputs")
        running = running_below(tmp_path)
        os.kill(service_pid(running, "trainer"), signal.SIGKILL)
        assert process.wait() == 1
        _, alive = psutil.wait_procs(running, timeout=TEST_LIMIT_S)
        assert alive == []
    assert running_below(tmp_path) == []


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
        os.kill(service_pid(running_below(tmp_path), "inference"), signal.SIGKILL)
        assert process.wait() == 1
        assert process.stderr is not None
        assert "inference ended" in process.stderr.read()
    assert running_below(tmp_path) == []
