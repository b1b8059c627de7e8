"""One trainer, nothing else: grpcurl, a tiny model, the real engine, and `kill -9`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.tiny_model import make_tiny_model, write_rows
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer
from tuneforge.v1 import errors_pb2, events_pb2, nodes_pb2, spec_pb2, trainer_pb2

STEPS = 60  # with this model a run of seconds: it must not end before it is killed
GRPCURL = Path(sys.executable).parent / "grpcurl"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerProcess]:
    """The real trainer with a tiny model and rows below its inputs folder."""
    with running_trainer(tmp_path_factory.mktemp("trainer"), is_real=True) as process:
        make_tiny_model(process.inputs / "model", layers=4, hidden=256)
        write_rows(process.inputs / "animals.jsonl", 24)
        yield process


def _spec() -> spec_pb2.TrainingSpec:
    return spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(local_path="model"),
        supervised=spec_pb2.SupervisedTask(),
        lora=spec_pb2.LoraMethod(rank=4, dropout=0.1),
        data=spec_pb2.DataConfig(train=spec_pb2.DataSource(local_path="animals.jsonl")),
        optimization=spec_pb2.Optimization(max_steps=STEPS, rows_per_step=8, learning_rate=1e-2),
        checkpointing=spec_pb2.Checkpointing(every_steps=3),
        seed=5,
    )


def _start(trainer: TrainerProcess, name: str, resources: spec_pb2.Resources | None = None) -> None:
    spec = _spec()
    spec.resources.CopyFrom(resources or spec_pb2.Resources())
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=spec, token="t"))


def _losses(events: list[events_pb2.Event]) -> dict[int, tuple[float, float, str]]:
    steps = [event.step for event in events if event.HasField("step")]
    return {step.step: (step.loss, step.grad_norm, step.rows_digest) for step in steps}


@pytest.fixture(scope="module")
def unbroken(trainer: TrainerProcess) -> dict[int, tuple[float, float, str]]:
    """Loss, gradient norm and rows of each step of a run that nothing disturbs."""
    name = attempt_name("unbroken")
    _start(trainer, name)
    events, status = trainer.watch(name)
    assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED, status
    return _losses(events)


def test_rows_are_made_into_tokens_once(trainer: TrainerProcess, unbroken: dict[int, tuple[float, float, str]]) -> None:
    """The node keeps the rows of its first attempt; another job over them learns from what it kept."""
    (kept,) = (trainer.folder / "data/trainer/tokens").iterdir()
    made = kept.stat().st_ino
    name = attempt_name("again")
    _start(trainer, name)
    events, _ = trainer.watch(name)
    assert _losses(events) == unbroken
    assert [path.stat().st_ino for path in (trainer.folder / "data/trainer/tokens").iterdir()] == [made]


def test_fork_server_only_imports(trainer: TrainerProcess) -> None:
    """The fork server has torch, one thread and no gRPC; the agent has gRPC and no torch."""

    def ready() -> psutil.Process | None:
        assert trainer.process
        for child in psutil.Process(trainer.process.pid).children():
            if any("libtorch_cpu" in each.path for each in child.memory_maps()):
                return child
        return None

    server = eventually(ready, "a fork server with torch")
    eventually(lambda: '"event": "workers start warm' in trainer.log.read_text(), "a warm fork server")
    assert server.num_threads() == 1
    assert not any("cygrpc" in each.path for each in server.memory_maps())
    assert trainer.process
    agent = [each.path for each in psutil.Process(trainer.process.pid).memory_maps()]
    assert any("cygrpc" in path for path in agent)
    assert not any("torch" in path for path in agent)


def test_killed_agent_changes_no_number(trainer: TrainerProcess, unbroken: dict[int, tuple[float, float, str]]) -> None:
    """`kill -9` of the agent in the middle: the worker goes on, and the run is the unbroken one bit for bit."""
    name = attempt_name("adopted")
    _start(trainer, name)
    trainer.wait_step(name, 2)
    pid = trainer.worker_pid(name)
    trainer.end(signal.SIGKILL)
    trainer.start()
    events, status = trainer.watch(name)
    assert trainer.worker_pid(name) == pid
    assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED
    assert _losses(events) == unbroken


def test_killed_worker_resumes_bit_for_bit(
    trainer: TrainerProcess, unbroken: dict[int, tuple[float, float, str]]
) -> None:
    """`kill -9` of the worker: the next attempt goes on from the last checkpoint with the unbroken run's numbers.

    It is held to a share of CPU and memory, which changes no number.
    """
    first, second = attempt_name("resumed", 1), attempt_name("resumed", 2)
    _start(trainer, first)
    trainer.wait_event(first, lambda event: event.HasField("checkpoint") and event.checkpoint.step >= 3)
    os.kill(trainer.worker_pid(first), signal.SIGKILL)
    before, status = trainer.watch(first)
    assert status.state == nodes_pb2.ATTEMPT_STATE_LOST
    cores = len(os.sched_getaffinity(0))
    _start(trainer, second, spec_pb2.Resources(cpu_millis=1000 * cores, memory_bytes=8_000_000_000))
    after, status = trainer.watch(second)
    assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED
    (resumed,) = [event.resumed_from for event in after if event.HasField("resumed_from")]
    assert resumed.step >= 3
    assert min(_losses(after)) == resumed.step + 1
    assert _losses(before) | _losses(after) == unbroken


def test_a_worker_is_held_to_its_memory(trainer: TrainerProcess) -> None:
    """More than it asked for: the attempt fails as OUT_OF_MEMORY, names the field, and the node goes on."""
    name = attempt_name("greedy")
    write_rows(trainer.inputs / "many.jsonl", 600)
    spec = _spec()
    spec.data.train.local_path = "many.jsonl"
    spec.optimization.rows_per_step = spec.optimization.rows_per_micro_batch = 512
    spec.resources.memory_bytes = 600_000_000
    trainer.stub.StartAttempt(trainer_pb2.StartAttemptRequest(name=name, spec=spec, token="t"))
    _, status = trainer.watch(name)
    assert status.state == nodes_pb2.ATTEMPT_STATE_FAILED
    assert status.failure.reason == errors_pb2.ERROR_REASON_OUT_OF_MEMORY, status
    assert "`resources.memory_bytes`, which is 600000000" in status.failure.cure
    assert status.failure.metadata["limit_bytes"] == "600000000"


def test_grpcurl_is_enough(trainer: TrainerProcess) -> None:
    """With grpcurl alone a run is started, watched and acknowledged, and the result lies on the node."""

    def call(method: str, **request: object) -> str:
        command = [str(GRPCURL), "-plaintext", "-d", json.dumps(request), trainer.address]
        result = subprocess.run(
            [*command, f"tuneforge.v1.TrainerService/{method}"], capture_output=True, text=True, check=True
        )
        return result.stdout

    name = attempt_name("by-hand")
    spec = {
        "base": {"localPath": "model"},
        "supervised": {},
        "lora": {"rank": 4},
        "data": {"train": {"localPath": "animals.jsonl"}},
        "optimization": {"maxSteps": 2, "rowsPerStep": 2},
    }
    assert "STARTING" in call("StartAttempt", name=name, spec=spec)
    text = call("WatchAttempt", name=name)
    messages = list(_json_values(text))
    events = [event for message in messages for event in message.get("events", [])]
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert messages[-1]["status"]["state"] == "ATTEMPT_STATE_SUCCEEDED"
    (line,) = [event["log"]["message"] for event in events if "the result is in" in str(event.get("log"))]
    assert (Path(line.removeprefix("the result is in ")) / "adapter_model.safetensors").is_file()
    assert name in call("GetNode")
    call("AckEvents", name=name, seq=events[-1]["seq"], isFinal=True)
    assert name not in call("GetNode")


def _json_values(text: str) -> Iterator[Any]:
    """Gives the JSON objects that stand one after the other in a text."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        value, end = decoder.raw_decode(text, at)
        yield value
        at = end + len(text[end:]) - len(text[end:].lstrip())
