"""A worker that the kernel ends for lack of memory is told from others by the kernel's counter and its last samples.

The kernel's counter is a file of the test; worker, agent and signal 9 are real.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import WAIT_LIMIT_S
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer, scripted_spec
from tuneforge.v1 import errors_pb2, nodes_pb2, trainer_pb2, types_pb2

LONG = 100_000


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    """The files of a control group."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "own").write_text("0::/\n")
    (folder / "memory.events").write_text("oom_kill 0\n")
    return folder


@pytest.fixture
def trainer(tmp_path: Path, cgroup: Path) -> Iterator[TrainerProcess]:
    """A node in that control group."""
    with running_trainer(tmp_path / "node", env={"TUNEFORGE_TEST_CGROUP": str(cgroup)}) as process:
        yield process


def _killed(trainer: TrainerProcess, cgroup: Path, *, limit: int) -> nodes_pb2.AttemptStatus:
    """Returns the end of an attempt that is killed with signal 9 while the counter rises, under a limit in bytes."""
    name = attempt_name("greedy")
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=scripted_spec(steps=LONG), token="t"))

    def has_sample() -> bool:
        request = trainer_pb2.WatchAttemptRequest(name=name)
        for message in trainer.stub.WatchAttempt(request, timeout=WAIT_LIMIT_S):
            if any(event.HasField("device") for event in message.events):
                return True
        return False

    eventually(has_sample, "a sample of the worker's memory")
    (cgroup / "memory.max").write_text(str(limit))
    (cgroup / "memory.events").write_text("oom_kill 1\n")
    os.kill(trainer.worker_pid(name), signal.SIGKILL)
    return trainer.watch(name)[1]


def test_the_kernel_meant_the_worker(trainer: TrainerProcess, cgroup: Path) -> None:
    """Near the limit, and the counter has risen: OUT_OF_MEMORY with both figures and a cure, and no new attempt."""
    status = _killed(trainer, cgroup, limit=10_000_000)
    assert status.state == nodes_pb2.ATTEMPT_STATE_FAILED
    failure = status.failure
    assert failure.reason == errors_pb2.ERROR_REASON_OUT_OF_MEMORY
    assert failure.fault == types_pb2.FAULT_CLASS_USER
    assert int(failure.metadata["peak_bytes"]) > 5_000_000
    assert failure.metadata["limit_bytes"] == "10000000"
    assert failure.metadata["change"] == "`optimization.rows_per_micro_batch` 1"


def test_the_kernel_meant_another(trainer: TrainerProcess, cgroup: Path) -> None:
    """Far from the limit: another process may have been meant, so it is an infrastructure fault with a hint."""
    status = _killed(trainer, cgroup, limit=10**15)
    assert status.state == nodes_pb2.ATTEMPT_STATE_LOST
    assert status.failure.reason == errors_pb2.ERROR_REASON_WORKER_LOST
    assert "for lack of memory meanwhile" in status.failure.message
