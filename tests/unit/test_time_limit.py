"""A test that hangs fails under its name, whatever it waits for, and the others go on."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGING = """
import asyncio, subprocess, sys, threading

def test_a_process_that_never_ends():
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        try:
            process.wait()
        finally:
            process.kill()

def test_a_thread_that_the_loop_waits_for():
    async def main():
        async with asyncio.timeout(0.1):
            await asyncio.to_thread(threading.Event().wait, 5)
    asyncio.run(main())

def test_others_go_on():
    pass
"""


def test_what_hangs_fails_under_its_name(tmp_path: Path) -> None:
    """A wait for a process, and the wait of an event loop for its thread, are interrupted where they are."""
    path = tmp_path / "test_hanging.py"
    path.write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.support.time_limit"]
    options = ["-c", "/dev/null", "--rootdir", str(tmp_path), "-o", "limit_s=2", "-q", str(path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "2 failed, 1 passed" in done.stdout, done.stdout
    assert done.stdout.count("not over after 2 s") >= 2
    assert "most recent call first" in done.stdout
