"""Processes that are measured against each other: each is warm, and makes a round whenever it is told to.

A contestant is a module with `main(work)`; it prepares once and calls `rounds`, which reads a line for each round and
answers with one line of JSON. So imports and loading stay out of the figures, and rounds of several contestants can
alternate, each alone on the machine while it runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

_MARK = "ROUND "


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The training that every contestant does; the same rows in the same steps from the same weights."""

    weights: str
    """Folder of the base."""
    rows: str
    """JSONL file, for who makes tokens himself."""
    steps: list[list[dict[str, list[int]]]]
    """Rows of each step as tokens: `input_ids` and `completion_mask` (1 for a token that is learned)."""
    adapter: str
    """Folder of the initial adapter; empty: every weight is trained."""
    compute: str
    """`bf16` (products; weights in float32) or `fp32`."""
    threads: int
    """CPU threads."""
    learning_rate: float
    """Of every step."""
    rows_at_once: int = 0
    """Rows that our engine computes at once, as it resolves it."""
    tokens_at_once: int = 0
    """Tokens that our engine computes at once, as it resolves it."""
    seed: int = 0
    """Of the run."""

    def write(self, path: Path) -> Path:
        """Writes it for the contestants."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: str) -> Work:
        """Reads what `write` wrote."""
        return cls(**json.loads(Path(path).read_text()))

    @property
    def tokens(self) -> int:
        """Tokens of all rows, filling left out."""
        return sum(len(row["input_ids"]) for step in self.steps for row in step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a contestant."""

    cpu_s: float
    """Processor time of the process, all threads, in seconds."""
    first_cpu_s: float
    """The part of it that the first step took: it touches the memory of gradients and optimiser for the first time."""
    wall_s: float
    """Seconds by the clock."""
    losses: list[float]
    """Mean loss of each step in nats a supervised token."""
    grad_norms: list[float]
    """Norm of the gradient of each step, before clipping."""
    note: str = ""
    """What the contestant says of how it computed."""


class Stopwatch:
    """Processor and wall time of this process between two moments."""

    def start(self) -> None:
        """Starts it."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        """Returns processor and wall seconds since the start."""
        return time.process_time() - self._cpu, time.perf_counter() - self._wall


class Contestant:
    """A contestant's process."""

    def __init__(self, module: str, *arguments: str, python: str = sys.executable) -> None:
        """Starts it; it prepares until the first round."""
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}  # noqa: PTH109
        self.module = module
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Contestant:
        self._answer()  # prepared
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def round(self) -> Round:
        """Lets it make a round."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Round(**json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_MARK):
                return line.removeprefix(_MARK)
        raise RuntimeError(f"{self.module} ended with code {self._process.wait()}")


def rounds(make: Callable[[], Round]) -> None:
    """Makes a round for each line that is read; called by a contestant when it is prepared."""
    sys.stdout.write(_MARK + "ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        answer = make()
        sys.stdout.write(_MARK + json.dumps(asdict(answer)) + "\n")
        sys.stdout.flush()


def relative_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns the largest difference of two curves, relative to the second one."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))
