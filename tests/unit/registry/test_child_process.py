"""Children of the registry: they keep to their limits, know no secret, and end with whom they work for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.registry.child_process import ROOT, Child, Ended, ask, started
from tests.support.event_loop import on_loop

FAMILY = "import os, signal; os.fork() or print('up', flush=True); signal.pause()"
"""Two processes that hold the output open."""


def child_of(code: str, **limits: int) -> Child:
    """Returns a child that runs code under limits."""
    return Child(module="tests.support.limited_child", arguments=(json.dumps(limits), code))


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("bytearray(2**31)", {"memory_bytes": 2**30}),
        ("bytearray(2**31)", {"data_bytes": 2**30}),
        ("while True: pass", {"cpu_s": 1}),
    ],
    ids=["memory", "data", "time"],
)
def test_who_takes_too_much_is_ended_and_known_for_it(code: str, limits: dict[str, int]) -> None:
    """Each limit holds, and the end tells it from a mistake of ours."""
    assert ask(child_of(code, **limits), b"", limit_s=60)[1].is_exhausted
    end = ask(child_of("raise ValueError('ours')"), b"", limit_s=60)[1]
    assert (end.code, end.is_exhausted) == (1, False)
    assert "ours" in end.words


def test_files_and_cores_are_limited(tmp_path: Path) -> None:
    """No larger file is written, no more files are open, and no memory of the process is left on the disk."""
    write = f"import pathlib; pathlib.Path({str(tmp_path / 'rows')!r}).write_text('1234')"
    assert "File too large" in ask(child_of(write, file_bytes=3), b"", limit_s=60)[1].words
    assert ask(child_of(write, file_bytes=4), b"", limit_s=60)[1] == Ended(0, "")
    answer, _ = ask(child_of("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"), b"", limit_s=60)
    assert answer == b"(0, 0)\n"
    end = ask(child_of("kept = [open('/dev/null') for _ in range(30)]", open_files=20), b"", limit_s=60)[1]
    assert "Too many open files" in end.words


def test_a_child_gets_no_variable_that_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the registry stay with it, and the marker of its parent does not go further."""
    monkeypatch.setenv("TUNEFORGE_TOKEN", "secret")
    answer, end = ask(child_of("import os; print(sorted(os.environ))"), b"", limit_s=60)
    assert end.code == 0
    assert {"PATH", "PYTHONPATH"} <= set(json.loads(answer.replace(b"'", b'"'))) <= {"PATH", "PYTHONPATH", "LC_CTYPE"}


def test_what_takes_too_long_is_ended() -> None:
    """A call that blocks has a deadline."""
    with pytest.raises(TimeoutError):
        ask(child_of("import signal; signal.pause()"), b"", limit_s=0.2)


@on_loop
async def test_it_answers_its_order() -> None:
    """Input, output, words and code arrive, however long the words are."""
    code = "import sys; print(sys.stdin.read()[::-1]); sys.stderr.write('x' * 300_000 + 'end'); sys.exit(3)"
    async with started(child_of(code)) as running:
        answer, end = await running.answer(b"order")
    assert (answer, end) == (b"redro\n", Ended(3, "x" * 3997 + "end"))


@on_loop
async def test_it_and_what_it_started_end_with_the_block() -> None:
    """When the block is left, or cancelled: the output is closed by all who held it."""
    for is_cancelled in (False, True):
        is_up = asyncio.Event()

        async def work(is_up: asyncio.Event = is_up, wait: bool = is_cancelled) -> int:
            async with started(child_of(FAMILY)) as running:
                assert await running.stdout.readline() == b"up\n"
                is_up.set()
                if wait:
                    await running.stdout.read()
            return (await running.ended()).code

        task = asyncio.create_task(work())
        await is_up.wait()
        if is_cancelled:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 30)
        else:
            assert await asyncio.wait_for(task, 30) == -signal.SIGKILL


def test_it_ends_with_a_registry_that_is_killed(tmp_path: Path) -> None:
    """The kernel ends it when nobody is left to."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    code = f"import signal; held = open({str(fifo)!r}, 'w'); held.write('up'); held.flush(); signal.pause()"
    program = f"""
from services.registry.child_process import Child, ask
ask(Child(module="tests.support.limited_child", arguments=("{{}}", {code!r})), b"", limit_s=60)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as registry, fifo.open() as alive:
        assert alive.read(2) == "up"
        registry.kill()
        assert alive.read() == "", "closed by the child's end"
