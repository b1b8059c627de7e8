"""Freed memory that is kept needs no new pages."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, resource, sys
from services.grpckit.freed_memory import ALL, keep_freed_memory

if not hasattr(ctypes.CDLL(None), "mallopt"):
    print(0, "no GNU C library")
    sys.exit()
is_kept = keep_freed_memory(ALL) if sys.argv[1] == "kept" else True
assert is_kept
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step = [bytearray(b"x") * (8 << 20) for _ in range(6)]  # 48 MB, as a step of a small model
    del step
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[1:]))
"""


def _faults(kind: str) -> int:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], cwd=root, capture_output=True, text=True, check=True)
    number, _, note = done.stdout.strip().partition(" ")
    if note:
        pytest.skip(note)
    return int(number)


def test_what_a_step_freed_is_there_for_the_next_one() -> None:
    """Pieces of 8 MB that are freed and taken again cost no page fault; as the C library comes, they cost many.

    Thousands, or hundreds where the kernel gives huge pages.
    """
    assert _faults("kept") < 50 < _faults("as it comes") / 3
