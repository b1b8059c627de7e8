"""Control groups: what the kernel says of the memory of this one, and a group of its own for a worker's CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000
_QUOTA_LEAST_US = 1000
"""The kernel takes no smaller one."""


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


def limit_cpu(pid: int, millis: int, name: str) -> Path | None:
    """Puts a process into a new control group with a share of CPU time, and returns the group's folder.

    Args:
        pid: The process; threads and processes that it starts are in the group too.
        millis: Thousandths of a core, >= 1.
        name: Name of the group below the one that this process is in.

    Returns:
        None when this process may not make groups here; then nothing has changed.
    """
    quota_us = max(_QUOTA_LEAST_US, millis * _PERIOD_US // 1000)
    for parent in _folders("cpu"):
        files = {"cpu.max": f"{quota_us} {_PERIOD_US}"}
        if not (parent / "cgroup.controllers").exists():
            files = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota_us)}
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            for file, content in files.items():
                _write_there(folder / file, content)
            _write_there(folder / "cgroup.procs", str(pid))
        except OSError:
            folder.rmdir()
            continue
        return folder
    return None


def _write_there(path: Path, content: str) -> None:
    """Writes a file that the kernel has made; raises OSError where the group lacks it."""
    with path.open("r+") as file:
        file.write(content)


def _folders(controller: str = "memory") -> Iterator[Path]:
    """Yields where the files of this process's cgroup of a controller may be, the likeliest first."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        path = path.lstrip("/")
        if controllers == "":
            yield from (_ROOT / path, _ROOT / "unified" / path)
        elif controller in controllers.split(","):
            # A container sees its own group as the root.
            yield from (_ROOT / controllers / path, _ROOT / controller / path, _ROOT / controller)


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
