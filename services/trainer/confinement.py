"""Holds a worker to the CPU and memory that its attempt asked for. Called by the worker itself, before it computes.

Memory is held by the kernel's limit on private memory (`RLIMIT_DATA`), which needs no privilege: an allocation above it
is refused inside the worker, so the attempt ends as OUT_OF_MEMORY with its peak and a cure, and no other process is
hurt. CPU time is held by a control group of the worker's own where this process may make one, down to a thousandth of a
core, else by pinning it to as many whole cores, rounded up.
"""

from __future__ import annotations

import math
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.trainer import cgroups
from services.trainer.engine.training_task import TrainingFault
from tuneforge.errors import Reason

_STACKS_BYTES = 64 * 1024 * 1024
"""Stacks of threads are mapped whole and hardly touched: room for eight of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What an attempt asked for; 0: not limited."""

    cpu_millis: int
    """Thousandths of a core."""
    memory_bytes: int
    """Memory of the host, the libraries that every worker has included."""
    first_core: int = 0
    """Where to begin when the worker is pinned to cores, so that neighbours do not share them."""


def confine(share: Share, group: str, note: Path) -> None:
    """Holds this process, and all threads that it starts later, to its share.

    Args:
        share: What it may use.
        group: Name of the control group to make.
        note: File that gets the folder of the group, for whoever removes it; not written without one.

    Raises:
        TrainingFault: OUT_OF_MEMORY: it uses more already.
    """
    if share.memory_bytes:
        _limit_memory(share.memory_bytes)
    if not share.cpu_millis:
        return
    folder = cgroups.limit_cpu(os.getpid(), share.cpu_millis, group)
    if folder is not None:
        note.write_text(str(folder))
    else:
        os.sched_setaffinity(0, cores_for(share, sorted(os.sched_getaffinity(0))))


def cores_for(share: Share, cores: list[int]) -> set[int]:
    """Returns the cores that a worker is pinned to: its share rounded up, at most all of them."""
    count = min(len(cores), math.ceil(share.cpu_millis / 1000))
    return {cores[(share.first_core + index) % len(cores)] for index in range(count)}


def release(note: Path) -> None:
    """Removes the control group of a worker that has ended; does nothing when it had none."""
    try:
        Path(note.read_text()).rmdir()
    except OSError:  # none was made, it is gone, or a process is still in it and the next start of the node removes it
        return
    note.unlink(missing_ok=True)


def _limit_memory(memory_bytes: int) -> None:
    used = psutil.Process().memory_info()
    if memory_bytes <= used.rss:
        raise TrainingFault(
            Reason.OUT_OF_MEMORY,
            f"`resources.memory_bytes` is {memory_bytes}, and a worker uses {used.rss} bytes before it reads anything.",
            "Ask for more, or leave it out.",
            metadata={"limit_bytes": str(memory_bytes), "peak_bytes": str(used.rss)},
        )
    # Private memory that is mapped and not touched, or still shared with the process that this one was forked from, is
    # counted by the limit and is not in use: what may come is what is asked for less what is resident.
    limit = used.data + memory_bytes - used.rss + _STACKS_BYTES
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
