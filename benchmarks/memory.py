"""Predicted peak memory beside the real one, over runs of several families, methods and formats; see `memory_runs`.

The peer is the arithmetic of `accelerate estimate-memory` (accelerate 1.15, `commands/estimate.py`): four times the
weights for training with Adam, half of it in 16 bits, without activations, adapters or libraries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.record import Record
from tuneforge.specs.memory import HOST_OVERHEAD_BYTES

NEAR = 0.15
WANTED = 0.95
FEWEST_CASES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run; all in bytes."""

    case: str
    family: str
    predicted: float
    """By arithmetic."""
    granted: float
    """Upper end of the prediction, by which a job is admitted."""
    real: float
    """The run's own peak."""
    peer: float
    """The peer's prediction."""

    @property
    def error(self) -> float:
        """Of the prediction, as a share of the real peak."""
        return self.predicted / self.real - 1

    @property
    def peer_error(self) -> float:
        """Of the peer's prediction."""
        return self.peer / self.real - 1


def run() -> Record:
    """Trains all cases and returns the record."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.memory_runs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the runs failed: {done.stderr[-2000:]}")
    lines = [Line(**json.loads(text)) for text in done.stdout.splitlines()]
    print(table(lines), flush=True)
    return record(lines)


def table(lines: Sequence[Line]) -> str:
    """Returns predicted, real and error of each run."""
    rows = [f"{'case':58} {'predicted':>10} {'real':>10} {'error':>7} {'peer':>7}"]
    rows += [
        f"{line.case:58} {line.predicted / 1e6:7.0f} MB {line.real / 1e6:7.0f} MB {line.error:+7.1%} "
        f"{line.peer_error:+7.0%}"
        for line in lines
    ]
    return "\n".join(rows)


def record(lines: Sequence[Line], *, near: float = NEAR) -> Record:
    """Returns the record of some runs.

    Args:
        lines: The runs.
        near: Largest error that counts as right, as a share of the real peak.
    """
    ours = sum(abs(line.error) <= near for line in lines) / len(lines)
    peer_near = sum(abs(line.peer_error) <= near for line in lines) / len(lines)
    above = sum(line.real > line.granted for line in lines)
    families = sorted({line.family for line in lines})
    errors = {family: [line.error for line in lines if line.family == family] for family in families}
    generous = sum(abs((line.peer + HOST_OVERHEAD_BYTES) / line.real - 1) <= near for line in lines) / len(lines)
    details: dict[str, float | str] = {
        "runs": len(lines),
        "runs above what was granted": above,
        "worst error, %": round(max(abs(line.error) for line in lines) * 100, 1),
        "worst error of the peer, %": round(max(abs(line.peer_error) for line in lines) * 100, 1),
        "peer with our figure for libraries added to it, % of runs": round(100 * generous, 1),
    }
    for family, found in errors.items():
        details[f"error of {family}, %"] = f"{min(found) * 100:+.1f} to {max(found) * 100:+.1f}, {len(found)} runs"
    return Record(
        name="memory",
        what=f"Share of {len(lines)} runs whose peak memory was predicted within {near:.0%} before they began",
        ours=100 * ours,
        peer=100 * peer_near,
        peer_name="arithmetic of accelerate estimate-memory (training with Adam)",
        ratio=ours / WANTED,
        target=1.0,
        limit=100.0,
        unit="% of runs",
        equal_output=len(lines) >= FEWEST_CASES and above == 0,
        command="python -m benchmarks memory",
        details=details,
    )
