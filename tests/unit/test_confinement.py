"""A worker is held to the CPU and memory that its attempt asked for; kernel and processes are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.trainer import cgroups, confinement
from services.trainer.confinement import Share, cores_for

_BURN = """
import json, os, sys, threading, time, resource
from pathlib import Path
from services.trainer.confinement import Share, confine
confine(Share(cpu_millis={millis}, memory_bytes=0), "tuneforge-test-{name}", Path(sys.argv[1]))
def burn():
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        sum(range(10_000))
begin, spent = time.monotonic(), time.process_time()
burn()
used = (time.process_time() - spent) / (time.monotonic() - begin)
print(json.dumps(dict(used=used, cores=len(os.sched_getaffinity(0)))))
"""

_TAKE = """
import json, sys
from pathlib import Path
from services.trainer.confinement import Share, confine
import numpy
confine(Share(cpu_millis=0, memory_bytes={memory}), "unused", Path(sys.argv[1]))
kept = []
try:
    for _ in range(40):
        kept.append(numpy.ones(1_250_000))
except MemoryError:
    pass
print(json.dumps(len(kept) * 10_000_000))
"""


def _answer(code: str, note: Path) -> dict[str, float] | float:
    ran = subprocess.run(
        [sys.executable, "-c", code, str(note)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, float] | float = json.loads(ran.stdout)
    return answer


def test_a_share_of_a_core_is_not_exceeded(tmp_path: Path) -> None:
    """A third of a core gives a third of its time; where no group can be made, one core and no more."""
    note = tmp_path / "group"
    answer = _answer(_BURN.format(millis=333, name=os.getpid()), note)
    assert isinstance(answer, dict)
    if note.exists():
        assert answer["used"] < 0.45
        folder = Path(note.read_text())
        assert folder.is_dir()
        confinement.release(note)
        assert not folder.exists()
        assert not note.exists()
    else:
        assert answer["cores"] == 1


def test_memory_beyond_the_share_is_refused_inside_the_worker(tmp_path: Path) -> None:
    """Of 400 MB that it tries to take it gets what it asked for, give or take the room for stacks of threads."""
    got = _answer(_TAKE.format(memory=300_000_000), tmp_path / "group")
    assert isinstance(got, int)
    assert 150_000_000 <= got <= 370_000_000


def test_less_memory_than_the_libraries_take_is_said_at_once(tmp_path: Path) -> None:
    """The error names the field, the value, what is used already and what to do."""
    code = _TAKE.format(memory=1_000_000)
    ran = subprocess.run([sys.executable, "-c", code, "x"], capture_output=True, text=True, check=False, timeout=60)
    assert "`resources.memory_bytes` is 1000000, and a worker uses" in ran.stderr
    assert "Ask for more, or leave it out." in ran.stderr


@pytest.mark.parametrize(
    ("millis", "first", "expected"),
    [(500, 0, {4}), (1000, 1, {5}), (1500, 0, {4, 5}), (2500, 2, {6, 7, 4}), (64_000, 3, {4, 5, 6, 7})],
)
def test_neighbours_are_pinned_to_other_cores(millis: int, first: int, expected: set[int]) -> None:
    """Shares are rounded up to whole cores and begin where the slot says, around the end."""
    assert cores_for(Share(cpu_millis=millis, memory_bytes=0, first_core=first), [4, 5, 6, 7]) == expected


@pytest.mark.parametrize(
    ("line", "place", "files", "expected"),
    [
        ("0::/pod\n", "pod", ["cgroup.controllers"], {}),
        ("2:cpu,cpuacct:/pod\n", "cpu,cpuacct/pod", [], {}),
    ],
)
def test_without_a_group_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, place: str, files: list[str], expected: dict[str, str]
) -> None:
    """Where the kernel makes no files in a new folder there is no group, and the folder goes again."""
    (tmp_path / "own").write_text(line)
    parent = tmp_path / "root" / place
    parent.mkdir(parents=True)
    for name in files:
        (parent / name).touch()
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "root")
    assert cgroups.limit_cpu(os.getpid(), 500, "tuneforge-test") is None
    assert {path.name: path.read_text() for path in parent.iterdir() if path.name not in files} == expected


def test_nothing_to_release_is_no_error(tmp_path: Path) -> None:
    """Most workers have no group of their own."""
    confinement.release(tmp_path / "group")
