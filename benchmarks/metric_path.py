"""What reporting costs a training step: the time inside `emit` of the worker's event log, over the time of the step.

A real run of SmolLM2 with LoRA over short chat rows, its spool on disk. Peer: the same figures of each step, one row a
figure, inserted and committed in SQLite, the floor of a tracking server without any network.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.record import Record
from benchmarks.train_ours import spec_of
from benchmarks.training_work import ROWS, make_work
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.training import preload, train
from services.trainer.engine.training_task import Payload, TrainingInputs
from services.trainer.events import EventLog
from tuneforge.manifest import build
from tuneforge.names import AttemptName
from tuneforge.v1 import events_pb2

STEPS, ROWS_PER_STEP = 6, 8
TARGET_SHARE = 0.005
FIGURES = ("loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "step_seconds", "epoch")
"""What the peer stores of a step."""


class _Timed:
    """The worker's event log and the peer's table; notes how long each takes for a step."""

    def __init__(self, log: EventLog, table: sqlite3.Connection) -> None:
        self._log, self._table = log, table
        self.ours: list[float] = []
        self.peer: list[float] = []
        self.steps: list[float] = []

    def emit(self, payload: Payload) -> None:
        """Writes the event, and a step to the peer too."""
        began = time.perf_counter()
        self._log.emit(payload)
        if isinstance(payload, events_pb2.StepMetrics):
            self.ours.append(time.perf_counter() - began)
            self.steps.append(payload.step_seconds)
            self.peer.append(_seconds(lambda: self._insert(payload)))

    def _insert(self, step: events_pb2.StepMetrics) -> None:
        for name in FIGURES:
            with self._table:
                row = (step.step, name, float(getattr(step, name)))
                self._table.execute("INSERT INTO figures VALUES (?, ?, ?)", row)


def run() -> Record:
    """Trains and returns the record."""
    preload()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = make_work(folder, compute="bf16", steps=STEPS, rows_per_step=ROWS_PER_STEP)
        manifest = build(Path(work.weights))
        base = LocalArtifact(
            folder=Path(work.weights), manifest=manifest, kind="model", ref_version="", digest=manifest.digest
        )
        table = sqlite3.connect(folder / "figures.db")
        table.executescript("PRAGMA journal_mode=WAL; CREATE TABLE figures (step INTEGER, name TEXT, value REAL)")
        log = EventLog(folder / "spool", AttemptName("default", "bench", 1), 0)
        timed = _Timed(log, table)
        task = TrainingInputs(
            spec=spec_of(work),
            base=[base],
            train=[ROWS],
            checkpoints=folder / "checkpoints",
            attempt=1,
            output=folder / "output",
            threads=work.threads,
        )
        train(task, timed, lambda: None)
        log.close()
        table.close()
    share = sum(timed.ours) / sum(timed.steps)
    ours, peer = median(timed.ours), median(timed.peer)
    return Record(
        name="metric_path",
        what="microseconds inside emit for the report of a step, on disk against the end of the process",
        ours=ours * 1e6,
        peer=peer * 1e6,
        peer_name="the same figures in SQLite, a committed row each",
        ratio=TARGET_SHARE / share,
        target=1.0,
        limit=0.0,
        unit="us",
        equal_output=len(timed.ours) == STEPS,
        command="make bench NAME=metric_path",
        details={
            "share of step time": share,
            "target share": TARGET_SHARE,
            "ratio is": "target share over share",
            "peer over ours": peer / ours,
            "step_s": median(timed.steps),
        },
    )


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
