"""What the kernel says of a control group's memory is read in both of its versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.trainer import cgroups, devices


@pytest.mark.parametrize(
    ("cgroup", "file", "content"),
    [
        ("0::/job\n", "job/memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("4:memory:/job\n0::/\n", "memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
    ],
)
def test_kills_for_lack_of_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, file: str, content: str
) -> None:
    """The counter is found in both versions of cgroups."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(cgroup)
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text(content)
    monkeypatch.setattr(cgroups, "_OWN", proc / "self/cgroup")
    monkeypatch.setattr(cgroups, "_ROOT", groups)
    assert cgroups.count_oom_kills() == 2


def test_missing_counter_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not count says so."""
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "none")
    assert cgroups.count_oom_kills() is None
    assert cgroups.memory_limit_bytes() is None


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/pod/job\n", {"pod/job/memory.max": "max\n", "pod/memory.max": "3000\n"}, 3000),
        ("0::/pod/job\n", {"pod/job/memory.max": "2000\n", "pod/memory.max": "3000\n"}, 2000),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "5000\n"}, 5000),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str], expected: int | None
) -> None:
    """A limit of a group above counts too; a node has no more memory than that."""
    (tmp_path / "own").write_text(cgroup)
    for file, content in files.items():
        (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / file).write_text(content)
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "root")
    assert cgroups.memory_limit_bytes() == expected
    if expected is not None:
        assert devices.memory_bytes() == expected
