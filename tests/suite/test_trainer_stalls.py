"""A worker that stands still: its node says so, keeps what its threads were doing, and ends it at last; all real."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.support.tiny_model import make_tiny_model, write_rows
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer
from tuneforge.v1 import errors_pb2, nodes_pb2, spec_pb2, trainer_pb2, types_pb2

LONG = 100_000


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    """The real trainer with a tiny model and rows below its inputs folder."""
    with running_trainer(tmp_path_factory.mktemp("trainer"), is_real=True) as process:
        make_tiny_model(process.inputs / "model")
        write_rows(process.inputs / "animals.jsonl", 24)
        yield process


def _begin(trainer: TrainerProcess, name: str, *, after_s: int = 1, ends_after_s: int = 600) -> int:
    """Starts a run without end and returns the pid of its worker once it trains, and is not stalled."""
    stall_after, ends_after = Duration(seconds=after_s), Duration(seconds=ends_after_s)
    spec = spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(local_path="model"),
        supervised=spec_pb2.SupervisedTask(),
        lora=spec_pb2.LoraMethod(rank=4),
        data=spec_pb2.DataConfig(train=spec_pb2.DataSource(local_path="animals.jsonl")),
        optimization=spec_pb2.Optimization(max_steps=LONG, rows_per_step=2),
        checkpointing=spec_pb2.Checkpointing(every_steps=0),
        guards=spec_pb2.Guards(stall_after=stall_after, stall_ends_after=ends_after),
    )
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=spec, token="t"))
    trainer.wait_step(name, 2)
    _wait_progress(trainer, name)
    return trainer.worker_pid(name)


def _stop(trainer: TrainerProcess, name: str) -> nodes_pb2.AttemptStatus:
    stop = trainer_pb2.StopAttemptRequest(name=name, token="t", mode=trainer_pb2.STOP_MODE_CANCEL)
    trainer.stub.StopAttempt(stop)
    return trainer.watch(name)[1]


def _wait_progress(trainer: TrainerProcess, name: str) -> None:
    """Returns when an attempt is not stalled; on a busy machine one step may take longer than it allows."""
    eventually(lambda: (now := trainer.attempt(name)) and not now.HasField("stall"), "progress")


def _stall(trainer: TrainerProcess, name: str) -> nodes_pb2.AttemptStatus | None:
    status = trainer.attempt(name)
    return status if status is not None and status.HasField("stall") else None


def test_a_stopped_worker_is_stalled_until_it_goes_on(trainer: TrainerProcess) -> None:
    """SIGSTOP: the attempt is RUNNING and stalled, and says why; SIGCONT: it is not, and its stacks were kept."""
    name = attempt_name("frozen")
    pid = _begin(trainer, name, after_s=3)  # longer than a step takes anywhere: the stall below is that of the signal
    os.kill(pid, signal.SIGSTOP)
    status = eventually(lambda: _stall(trainer, name), "a stall")
    assert status.state == nodes_pb2.ATTEMPT_STATE_RUNNING
    assert "is stopped by a signal" in status.stall.message
    assert (status.stall.attempt, status.stall.stacks) == (1, "")
    os.kill(pid, signal.SIGCONT)
    step = status.step
    _wait_progress(trainer, name)
    trainer.wait_step(name, step + 1)
    stacks = trainer.folder / "data/trainer/jobs/p/frozen/attempts/1-0/stacks.txt"
    assert "train_loop" in stacks.read_text()  # it answered as soon as it could
    assert _stop(trainer, name).state == nodes_pb2.ATTEMPT_STATE_CANCELLED


def test_a_worker_that_stays_silent_is_ended(trainer: TrainerProcess) -> None:
    """After `stall_ends_after` its process is ended as an infrastructure fault, so that the job gets a new attempt."""
    name = attempt_name("silent")
    pid = _begin(trainer, name, ends_after_s=8)  # longer than a step takes anywhere
    os.kill(pid, signal.SIGSTOP)
    _, status = trainer.watch(name)
    assert status.state == nodes_pb2.ATTEMPT_STATE_LOST
    assert status.failure.reason == errors_pb2.ERROR_REASON_STALLED
    assert status.failure.fault == types_pb2.FAULT_CLASS_INFRASTRUCTURE
    assert int(status.failure.metadata["step"]) >= 2
    assert not status.HasField("stall")


def test_stacks_of_a_busy_worker_are_told(trainer: TrainerProcess) -> None:
    """Hung in Python, with the interpreter held or not: the stall has the stacks of its threads."""
    name = attempt_name("hung")
    pid = _begin(trainer, name)
    _hang(trainer, name)

    def stacks() -> nodes_pb2.AttemptStatus | None:
        status = _stall(trainer, name)
        return status if status is not None and "train" in status.stall.stacks else None

    status = eventually(stacks, "a stall with stacks")
    assert "its process is alive" in status.stall.message
    assert "Current thread" in status.stall.stacks or "Thread 0x" in status.stall.stacks
    os.kill(pid, signal.SIGKILL)
    assert trainer.watch(name)[1].state == nodes_pb2.ATTEMPT_STATE_LOST


def _hang(trainer: TrainerProcess, name: str) -> None:
    """Makes the worker wait for ever in its next look for a stop: its stop file becomes a pipe that nobody writes."""
    job = name.split("/")[3]
    os.mkfifo(Path(trainer.folder) / f"data/trainer/jobs/p/{job}/attempts/1-0/stop.json")
