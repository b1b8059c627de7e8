"""What the kernel says of the memory of this process's control group: its limit, and who was ended for lack of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")


def count_oom_kills() -> int | None:
    """Returns how many processes of this cgroup the kernel has ended for lack of memory; `None` when it cannot say."""
    for folder in _folders():
        for name in ("memory.events", "memory.oom_control"):
            count = _entry(folder / name, "oom_kill")
            if count is not None:
                return count
    return None


def memory_limit_bytes() -> int | None:
    """Returns the lowest memory limit of this cgroup and those above it; `None` without one."""
    limits = []
    for folder in _folders():
        for above in (folder, *folder.parents):
            limits += [_number(above / name) for name in ("memory.max", "memory.limit_in_bytes")]
            if above == _ROOT:
                break
    # Version 1 says "no limit" with the largest number of pages that it can count.
    found = [limit for limit in limits if limit is not None and limit < 2**62]
    return min(found, default=None)


def _folders() -> Iterator[Path]:
    """Yields where the files of this process's memory cgroup may be, the likeliest first."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        path = path.lstrip("/")
        if controllers == "":
            yield from (_ROOT / path, _ROOT / "unified" / path)
        elif "memory" in controllers.split(","):
            # A container sees its own group as the root.
            yield from (_ROOT / "memory" / path, _ROOT / "memory")


def _entry(path: Path, wanted: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(" ")
        if key == wanted:
            return int(value)
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
