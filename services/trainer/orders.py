"""What the agent tells a worker, as files in the attempt's folder.

Files, not messages: they are there before the worker is, and they outlive the agent. The request itself lies beside
them as it came (`request.binpb`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from services.trainer.folders import read_json, write_json
from tuneforge.names import AttemptName
from tuneforge.specs.guards import STALL_AFTER_S, STALL_ENDS_AFTER_S


class StopMode(StrEnum):
    """How an attempt is to stop."""

    CHECKPOINT = "checkpoint"
    """Save the state at the next step's end, then stop."""
    CANCEL = "cancel"
    """Stop at the next step's end without saving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """Asks a worker to stop."""

    mode: StopMode
    """How."""
    kill_at: float
    """Unix time in seconds at which its process is ended if it is still there."""

    def write(self, path: Path) -> None:
        """Writes it durably."""
        write_json(path, {"mode": self.mode.value, "kill_at": self.kill_at})

    @classmethod
    def read(cls, path: Path) -> StopOrder | None:
        """Reads the order; `None` when nobody has asked."""
        content = read_json(path)
        if content is None:
            return None
        return cls(mode=StopMode(content["mode"]), kill_at=float(content["kill_at"]))

    def merged(self, newer: StopOrder) -> StopOrder:
        """Returns what holds after a second order: a cancel stays one, and the earlier end counts."""
        is_cancel = StopMode.CANCEL in (self.mode, newer.mode)
        return StopOrder(
            mode=StopMode.CANCEL if is_cancel else StopMode.CHECKPOINT, kill_at=min(self.kill_at, newer.kill_at)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the agent decided for an attempt when it accepted it."""

    name: AttemptName
    """The attempt."""
    node_rank: int
    """Rank of this node inside the attempt, from 0."""
    token: str
    """Fencing token; secret."""
    accepted_at: float
    """When it was accepted, Unix time in seconds."""
    slot: int
    """Slot of the node that it holds, from 0."""
    device_index: int | None
    """NVML index of its accelerator; `None`: the CPU."""
    threads: int
    """Threads that it computes with, >= 1."""
    base: str | None
    """Folder of a local base; `None`: layers by digest."""
    train: str | None
    """File of local rows; `None`: rows by digest."""
    validation: str | None
    """File of local validation rows; `None`: none, or rows by digest."""
    checkpoints: str
    """Folder of the job's checkpoints."""
    output: str
    """Folder that the artifact is made in."""
    is_kept: bool
    """Whether the artifact stays on this node: nobody manages the attempt."""
    cache: str
    """Folder of artifacts by digest."""
    registry: str
    """`host:port` of the registry; empty: none."""
    spool_bytes: int
    """Most bytes of its spool."""
    oom_kills: int | None
    """Processes that the kernel had ended for lack of memory until then; `None`: it does not say."""
    tokens: str = ""
    """Folder of rows kept as tokens."""
    tokens_bytes: int = 0
    """Most bytes of that folder; 0: rows are not kept."""
    cache_bytes: int = 0
    """Most bytes of `cache`; 0: no limit."""
    world_size: int = 1
    """Nodes of the attempt."""
    rendezvous: str = ""
    """`host:port` at which rank 0 waits; empty for rank 0 itself, which listens at `host`."""
    host: str = ""
    """Name or address at which other nodes reach this one."""
    cpu_millis: int = 0
    """Thousandths of a core that its worker may use; 0: no limit."""
    memory_bytes: int = 0
    """Memory of the host that its worker may use; 0: no limit."""
    stall_after_s: float = STALL_AFTER_S
    """Seconds without progress after which it counts as stalled."""
    stall_ends_after_s: float = STALL_ENDS_AFTER_S
    """Seconds without progress after which its process is ended."""

    @property
    def key(self) -> str:
        """`{attempt}-{rank}`, the name of its folder."""
        return f"{self.name.attempt}-{self.node_rank}"

    def write(self, path: Path) -> None:
        """Writes it durably; from then on the attempt is accepted."""
        write_json(path, asdict(self) | {"name": str(self.name)})

    @classmethod
    def read(cls, path: Path) -> Assignment:
        """Reads what `write` wrote.

        Raises:
            FileNotFoundError: The attempt was not accepted.
        """
        content: Mapping[str, Any] = json.loads(path.read_bytes())
        return cls(**{**content, "name": AttemptName.parse(content["name"])})
