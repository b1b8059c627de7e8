"""Predicted step times beside the real ones, after one calibrating run for each of two bases; see `step_time_runs`.

LoRA on a Llama of 6 million weights and on SmolLM2-135M, in bfloat16: other ranks, other targets, other steps, other
rows. The prediction is the scheduler's own: counted operations over the rate of the runs nearest in size. The peer is
the same without a measured run, which is what a first job is told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.record import Record
from benchmarks.step_time_runs import MAX_TOKENS
from services.scheduler.calibration import CPU, Kind, Measured, default_rate, seconds_per_flop
from tuneforge.specs.workload import row_tokens_of

NEAR = 0.30
_KIND = Kind(family="", method="lora", compute="bf16", device=CPU)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run."""

    name: str
    calibrates: bool
    flops_per_token: float
    tokens: float
    """Computed in all steps."""
    row_tokens: float
    """Computed for a row."""
    rows_per_step: int
    characters: float
    """Of a row whose data no run has seen before; 0: it has the rows of the calibrating run."""
    seconds: float
    """Of all steps."""
    step_s: float
    """Of the middle one."""

    @property
    def base(self) -> str:
        """What is trained."""
        return self.name.partition(",")[0]

    def error(self, runs: Sequence[Measured], row_tokens: float) -> float:
        """Returns how far a prediction is off, as a share of the real time.

        Args:
            runs: It stands on these.
            row_tokens: Tokens of a row that were measured on the calibrating run's data.
        """
        per_flop, _ = seconds_per_flop(runs, self.flops_per_token, default_rate(CPU, _KIND.compute, 1.0))
        tokens = row_tokens_of(self.characters, MAX_TOKENS) if self.characters else row_tokens
        return per_flop.expected * self.flops_per_token * tokens * self.rows_per_step / self.step_s - 1


def run() -> Record:
    """Trains all shapes and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.step_time_runs", folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return record([Line(**json.loads(text)) for text in done.stdout.splitlines()])


def record(lines: Sequence[Line]) -> Record:
    """Returns the record of some runs."""
    runs = [
        Measured(
            kind=_KIND,
            arithmetic_bytes=1,
            real_bytes=1,
            flops_per_token=line.flops_per_token,
            tokens=line.tokens,
            seconds=line.seconds,
        )
        for line in lines
        if line.calibrates
    ]
    others = [line for line in lines if not line.calibrates]
    row_tokens = {line.base: line.row_tokens for line in lines if line.calibrates}
    errors, before = ([line.error(some, row_tokens[line.base]) for line in others] for some in (runs, []))
    near, peer_near = (sum(abs(error) <= NEAR for error in found) / len(others) for found in (errors, before))
    return Record(
        name="step_time",
        what=f"Share of {len(others)} runs whose step time was predicted within 30 % after one calibrating run a base",
        ours=100 * near,
        peer=100 * peer_near,
        peer_name="the same without a measured run",
        ratio=near,
        target=1.0,
        limit=100.0,
        unit="% of runs",
        equal_output=len(runs) == len(lines) - len(others) > 0,
        command="python -m benchmarks step_time",
        details={
            "worst error, %": round(max(map(abs, errors)) * 100, 1),
            "worst error without a run, %": round(max(map(abs, before)) * 100, 1),
            **{f"{line.name}: error, %": round(100 * error, 1) for line, error in zip(others, errors, strict=True)},
        },
    )
