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

OF_THREADS = """
import ctypes, re, sys, threading
from pathlib import Path
from services.grpckit.freed_memory import keep_freed_memory

if not hasattr(ctypes.CDLL(None), "mallopt"):
    print(0, "no GNU C library")
    sys.exit()
assert keep_freed_memory(heaps=2 if sys.argv[1] == "two" else None)
over = threading.Event()

def use(is_done):
    bytearray(b"x") * (16 << 20)
    is_done.set()
    over.wait()

for _ in range(8):
    is_done = threading.Event()
    threading.Thread(target=use, args=[is_done]).start()
    is_done.wait()
over.set()
# Not `ru_maxrss`, which begins with what the parent had.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def _number(kind: str, program: str = PROGRAM) -> int:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, kind], cwd=root, capture_output=True, text=True, check=True)
    number, _, note = done.stdout.strip().partition(" ")
    if note:
        pytest.skip(note)
    return int(number)


def test_what_a_step_freed_is_there_for_the_next_one() -> None:
    """Pieces of 8 MB that are freed and taken again cost no page fault; as the C library comes, they cost many.

    Thousands, or hundreds where the kernel gives huge pages.
    """
    assert _number("kept") < 50 < _number("as it comes") / 3


def test_threads_share_what_is_kept() -> None:
    """Eight threads that took 16 MB one after the other do not leave eight times as much behind."""
    assert _number("two", OF_THREADS) + 60 < _number("any", OF_THREADS)
