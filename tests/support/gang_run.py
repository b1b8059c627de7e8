"""Runs of the engine in several processes, forked from one that has imported all libraries, as a node does it.

`run` is what a forked process does with its folder, `GangRunner` starts such processes and gives back what they said.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.trainer.engine.training_task import Payload, Seat, StopRequest, TrainingFault, TrainingInputs
from services.trainer.forkserver import PACKET_BYTES
from services.trainer.launching import PRELOAD
from tests.support.patience import TEST_LIMIT_S
from tests.support.task_rows import write_task_rows
from tests.support.trainer_node import eventually
from tests.support.training_run import RecordingSink, tiny_inputs
from tuneforge.specs.spec import SupervisedTask, TrainingSpec
from tuneforge.specs.wire import spec_from_proto, spec_to_proto
from tuneforge.v1 import events_pb2, spec_pb2

SIZE = 2


class _FileSink(RecordingSink):
    """Keeps every report in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, payload: Payload) -> None:
        """Keeps one report."""
        super().emit(payload)
        with self._path.open("a") as file:
            file.write(f"{type(payload).__name__} {payload.SerializeToString().hex()}\n")


def run(folder: Path) -> int:
    """Trains one process of a gang; its folder says which."""
    from services.trainer.engine import rendezvous, training

    orders = json.loads((folder / "orders.json").read_text())
    rank, job = orders["rank"], Path(orders["job"])
    meeting = job / f"address-{orders['attempt']}"
    seat, sink = None, _FileSink(folder / "reports")
    if orders["size"] > 1:
        listening = rendezvous.listen("127.0.0.1") if rank == 0 else None
        if listening is not None:
            name = meeting.with_suffix(".new")
            name.write_text(f"127.0.0.1:{listening.getsockname()[1]}")
            name.rename(meeting)
        eventually(meeting.exists, "the first process")
        address = meeting.read_text()
        descriptor = None if listening is None else listening.fileno()
        seat = Seat(
            rank=rank, size=orders["size"], address=address, listening=descriptor, timeout_s=orders["timeout_s"]
        )
    task = replace(
        _inputs(job, folder, orders), seat=seat, checkpoints=job / f"checkpoints-{rank}", attempt=orders["attempt"]
    )
    first = job / f"{orders['attempt']}-{orders['size']}-0" / "reports"

    def stop() -> StopRequest | None:
        steps = first.read_text().count(events_pb2.StepMetrics.__name__) if first.exists() else 0
        if 0 < orders["kill_after"] <= steps:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < orders["freeze_after"] <= steps:
            os.kill(os.getpid(), signal.SIGSTOP)
        return StopRequest(orders["stop"]) if 0 < orders["stop_after"] <= steps else None

    try:
        result = training.train(task, sink, stop)
        end = {"result": result.result.value, "step": result.step, "digest": result.artifact and result.artifact.digest}
    except TrainingFault as fault:
        end = {"result": "FAILED", "reason": fault.reason.value, "message": fault.message, "fault": fault.fault.value}
    (folder / "end.json").write_text(json.dumps(end))
    return 0


def _inputs(job: Path, folder: Path, orders: dict[str, Any]) -> TrainingInputs:
    spec = spec_from_proto(spec_pb2.TrainingSpec.FromString((folder / "spec.binpb").read_bytes()))
    task = replace(tiny_inputs(Path(orders["inputs"]), spec, rows=orders["rows"]), output=folder / "output")
    return replace(task, validation=task.train) if orders["validation"] else task


@dataclass(frozen=True)
class Ran:
    """What one process did."""

    sink: RecordingSink
    status: int
    """Exit code; -9: it was killed."""
    end: dict[str, Any]
    """How it ended by its own word; empty when it could not say."""
    output: Path


class GangRunner:
    """Starts processes that train together."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def train(
        self,
        job: Path,
        spec: TrainingSpec,
        *,
        size: int = SIZE,
        attempt: int = 1,
        rows: int = 10,
        validation: bool = False,
        ranks: dict[int, dict[str, Any]] | None = None,
    ) -> list[Ran]:
        """Runs one attempt to its end and returns what each process did, by rank.

        Args:
            job: Folder of the job; each process has checkpoints of its own in it, as on a node of its own.
            spec: What to train.
            size: Processes; 1: without any gang.
            attempt: Number of the attempt.
            rows: Rows of the data set.
            validation: Whether the rows are validated on too.
            ranks: Orders for single processes: `kill_after`, `freeze_after` or `stop_after` so many steps, what to
                `stop` for, how long to wait for others (`timeout_s`), and the folder of their `inputs`. A process that
                is frozen is killed when the others have ended.
        """
        task = tiny_inputs(job, spec, rows=rows)
        if spec.task is not None and not isinstance(spec.task, SupervisedTask):
            write_task_rows(task.train[0], spec.task, rows)
        folders = [job / f"{attempt}-{size}-{rank}" for rank in range(size)]
        for rank, folder in enumerate(folders):
            folder.mkdir()
            orders = {"job": str(job), "rank": rank, "size": size, "attempt": attempt, "rows": rows}
            orders |= {"validation": validation, "inputs": str(job), "timeout_s": TEST_LIMIT_S / 2}
            orders |= {"kill_after": 0, "freeze_after": 0, "stop_after": 0, "stop": "checkpoint"}
            orders |= (ranks or {}).get(rank, {})
            (folder / "orders.json").write_text(json.dumps(orders))
            (folder / "spec.binpb").write_bytes(spec_to_proto(spec).SerializeToString())
            self._control.send(json.dumps({"fork": rank, "folder": str(folder)}).encode())
        ranks_by_pid: dict[int, int] = {}
        statuses: dict[int, int] = {}
        while len(statuses) < size:
            message = json.loads(self._control.recv(PACKET_BYTES))
            if "forked" in message:
                ranks_by_pid[message["pid"]] = message["forked"]
            else:
                statuses[ranks_by_pid[message["exited"]]] = message["status"]
            frozen = [rank for rank, orders in (ranks or {}).items() if "freeze_after" in orders]
            if frozen and len(statuses) == size - len(frozen):
                for pid, rank in ranks_by_pid.items():
                    if rank in frozen:
                        os.kill(pid, signal.SIGKILL)
        return [_ran(folder, statuses[rank]) for rank, folder in enumerate(folders)]


def _ran(folder: Path, status: int) -> Ran:
    sink = RecordingSink()
    path = folder / "reports"
    for line in path.read_text().splitlines() if path.exists() else []:
        kind, _, content = line.partition(" ")
        sink.payloads.append(getattr(events_pb2, kind).FromString(bytes.fromhex(content)))
    end = folder / "end.json"
    return Ran(sink, status, json.loads(end.read_text()) if end.exists() else {}, folder / "output")


@contextmanager
def gang_runner(log: Path) -> Iterator[GangRunner]:
    """Keeps a process that others are forked from."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "services.trainer.forkserver", str(theirs.fileno()), PRELOAD]
    with log.open("ab") as file, theirs:
        process = subprocess.Popen(
            [*command, "tests.support.gang_run:run"],
            pass_fds=[theirs.fileno()],
            stdout=file,
            stderr=file,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )
    try:
        assert b"ready" in ours.recv(PACKET_BYTES), log.read_text()
        yield GangRunner(ours)
    finally:
        ours.close()
        process.wait(TEST_LIMIT_S)
