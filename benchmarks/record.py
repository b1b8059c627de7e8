"""One benchmark's result, and the file it is kept in."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Returns what the figures were measured on: processor kind, cores, Python."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Our figure beside a peer's, from the same run on the same work."""

    name: str
    """File name of the record, without `.json`."""
    what: str
    """What was measured, one sentence."""
    ours: float
    """Our figure in `unit`: the median of the rounds."""
    peer: float
    """The peer's figure in `unit`: the median of the rounds."""
    peer_name: str
    """What the peer is."""
    ratio: float
    """How much better we are; larger is better, 1 is equal."""
    target: float
    """The ratio that we want, at least."""
    limit: float
    """The best that could be had on this machine in `unit`, measured or computed in the same run."""
    unit: str
    """Unit of `ours`, `peer` and `limit`."""
    equal_output: bool
    """Whether both did the same work: the same losses, the same events."""
    command: str
    """What makes this record."""
    details: Mapping[str, float | str] = field(default_factory=dict)
    """Further figures of the run, by name."""
    machine: str = field(default_factory=machine)
    """What it was measured on."""
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When it was measured, UTC."""

    @property
    def met(self) -> bool:
        """Whether the target is met on equal work."""
        return self.equal_output and self.ratio >= self.target

    def write(self) -> Path:
        """Writes the record to `benchmarks/results/<name>.json`."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
        return path
