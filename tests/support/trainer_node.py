"""A trainer as a process: the real one, or the real one with `scripted_engine` in the place of torch.

As a module it is the second kind of process: `python -m tests.support.trainer_node`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from services.grpckit.server import run, serve
from services.trainer import cgroups
from services.trainer.__main__ import Node, become_subreaper
from services.trainer.launching import WorkerLauncher
from services.trainer.settings import TrainerSettings
from tests.support.patience import WAIT_LIMIT_S
from tuneforge.v1 import events_pb2, nodes_pb2, spec_pb2, trainer_pb2, trainer_pb2_grpc

Value = TypeVar("Value")


def eventually(look: Callable[[], Value | None], what: str, deadline_s: float = WAIT_LIMIT_S) -> Value:
    """Returns the first value of `look` that is not `None` or false; fails when there is none in time."""
    end = time.monotonic() + deadline_s
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)  # between two looks at a real condition


class TrainerProcess:
    """One trainer over a data folder; `start` it, `kill` it, `start` it again."""

    def __init__(self, folder: Path, *, is_real: bool = False, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.inputs = folder / "inputs"
        self.inputs.mkdir(parents=True, exist_ok=True)
        self._module = "services.trainer" if is_real else "tests.support.trainer_node"
        self._env = dict(env or {})
        self.address = ""
        self.process: subprocess.Popen[str] | None = None
        self._channel: grpc.Channel | None = None

    @property
    def log(self) -> Path:
        """What the agent writes to standard error."""
        return self.folder / "agent.log"

    def start(self) -> TrainerProcess:
        """Starts the agent and returns when it takes calls."""
        env = {
            **os.environ,
            "TUNEFORGE_DATA": str(self.folder / "data"),
            "TUNEFORGE_TRAINER_LISTEN": "127.0.0.1:0",
            "TUNEFORGE_TRAINER_METRICS_LISTEN": "",
            "TUNEFORGE_TRAINER_INPUTS": str(self.inputs),
            "TUNEFORGE_TRAINER_NODE": "n1",
            "TUNEFORGE_TRAINER_CPU_MILLIS": "1000",
            "TUNEFORGE_SCHEDULER_ADDRESS": "",
            **self._env,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.address = line.split(" listening on ")[1].split()[0]
        self._channel = grpc.insecure_channel(self.address)
        return self

    @property
    def stub(self) -> trainer_pb2_grpc.TrainerServiceStub:
        """Calls the agent."""
        assert self._channel
        return trainer_pb2_grpc.TrainerServiceStub(self._channel)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code; workers survive SIGKILL only."""
        assert self.process
        assert self._channel
        self.process.send_signal(number)
        code = self.process.wait(WAIT_LIMIT_S)
        self._channel.close()
        assert self.process.stdout
        self.process.stdout.close()
        self.process = None
        return code

    def attempt(self, name: str) -> nodes_pb2.AttemptStatus | None:
        """Returns an attempt as `GetNode` shows it."""
        node = self.stub.GetNode(trainer_pb2.GetNodeRequest(), timeout=WAIT_LIMIT_S)
        return next((each for each in node.attempts if each.name == name), None)

    def worker_pid(self, name: str) -> int:
        """Returns the pid of an attempt's worker, once it has one."""
        return eventually(lambda: self._worker_pid(name), f"a worker of {name}")

    def _worker_pid(self, name: str) -> int | None:
        import json

        _, project, _, job, _, attempt = name.split("/")
        path = self.folder / "data/trainer/jobs" / project / job / "attempts" / f"{attempt}-0" / "worker.json"
        return int(json.loads(path.read_text())["pid"]) if path.exists() else None

    def wait_step(self, name: str, step: int) -> None:
        """Returns when an attempt has finished a step."""
        eventually(lambda: (status := self.attempt(name)) and status.step >= step, f"step {step} of {name}")

    def wait_event(self, name: str, test: Callable[[events_pb2.Event], bool]) -> None:
        """Returns when an attempt has told of an event that passes a test; fails when it ends without one."""
        request = trainer_pb2.WatchAttemptRequest(name=name)
        for message in self.stub.WatchAttempt(request, timeout=WAIT_LIMIT_S):
            if any(map(test, message.events)):
                return
        raise AssertionError(f"{name} ended without the event")

    def watch(self, name: str, after_seq: int = 0) -> tuple[list[events_pb2.Event], nodes_pb2.AttemptStatus]:
        """Follows an attempt to its end; returns its events and its last status."""
        events: list[events_pb2.Event] = []
        status = nodes_pb2.AttemptStatus()
        request = trainer_pb2.WatchAttemptRequest(name=name, after_seq=after_seq)
        for message in self.stub.WatchAttempt(request, timeout=WAIT_LIMIT_S):
            events += message.events
            status = message.status
        return events, status


@contextmanager
def running_trainer(
    folder: Path, *, is_real: bool = False, env: Mapping[str, str] | None = None
) -> Iterator[TrainerProcess]:
    """Runs a trainer, and ends it and its workers whatever happened."""
    trainer = TrainerProcess(folder, is_real=is_real, env=env).start()
    (trainer.inputs / "tiny").mkdir(exist_ok=True)
    (trainer.inputs / "tiny/config.json").write_text("{}")
    (trainer.inputs / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    try:
        yield trainer
    finally:
        if trainer.process is None:
            trainer.start()  # adopts what a test has left
        trainer.end()


def scripted_spec(*, steps: int = 3, step_s: float = 0.01, behaviour: str = "") -> spec_pb2.TrainingSpec:
    """Returns a spec with local paths for the scripted engine."""
    return spec_pb2.TrainingSpec(
        base=spec_pb2.BaseModel(local_path="tiny"),
        supervised=spec_pb2.SupervisedTask(),
        lora=spec_pb2.LoraMethod(rank=4),
        data=spec_pb2.DataConfig(train=spec_pb2.DataSource(local_path="rows.jsonl")),
        optimization=spec_pb2.Optimization(max_steps=steps, learning_rate=step_s),
        evaluation=spec_pb2.Evaluation(prompts=[behaviour] if behaviour else []),
    )


def attempt_name(job: str, attempt: int = 1) -> str:
    """Returns the name of an attempt."""
    return f"projects/p/jobs/{job}/attempts/{attempt}"


async def main() -> int:
    """Serves a node whose workers run the scripted engine; returns the exit code."""
    settings = TrainerSettings.from_env()
    if folder := os.environ.get("TUNEFORGE_TEST_CGROUP"):
        cgroups._OWN, cgroups._ROOT = Path(folder) / "own", Path(folder)
    become_subreaper()
    engine = "tests.support.scripted_engine"
    log_path = settings.server.data / "forkserver.log"
    launcher = WorkerLauncher(log_path, preload=f"{engine}:preload", job=f"{engine}:run")
    return await serve(Node(settings, launcher).definition(), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="trainer"))
