"""Runs a module of ours in a process of its own, without the registry's secrets, and is sure to end it.

What is heavy, or reads what strangers wrote, is done there. The child takes its limits itself (`child_limits.py`). Two
ways to have it work: `ask` blocks the thread that calls it; `started` is for the event loop.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.grpckit.parent import END_WITH_PARENT

ROOT: Final = Path(__file__).parents[2]
"""Where our packages are."""
_WORDS_KEPT: Final = 4000
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What is started."""

    module: str
    """Run as `python -m`."""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its variables besides PATH and PYTHONPATH; of the registry's own it gets none that is not named here."""
    is_at_home: bool = True
    """Whether it finds our packages only; if not, also what lies in the registry's working folder and PYTHONPATH."""
    is_heard: bool = True
    """Whether the end of what it writes to stderr is kept; if not, it is thrown away, for it might hold secrets."""
    longest_line_bytes: int = 64 * 1024
    """Most bytes of a line that is read with `readline`."""

    def command(self) -> list[str]:
        """Returns what is run."""
        return [sys.executable, *(["-P"] if self.is_at_home else []), "-m", self.module, *self.arguments]

    def variables(self) -> dict[str, str]:
        """Returns the whole environment."""
        own = "" if self.is_at_home else os.environ.get("PYTHONPATH", "")
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), own])),
            END_WITH_PARENT: str(os.getpid()),
            **self.environment,
        }

    def folder(self) -> Path | None:
        """Returns the folder that it works in; None: the registry's."""
        return ROOT if self.is_at_home else None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    code: int
    """Exit code; below 0: the signal that ended it."""
    words: str
    """The end of what it wrote to stderr, at most 4000 bytes."""

    @property
    def is_exhausted(self) -> bool:
        """Whether it was ended for the memory or the time that it took."""
        return self.code < 0 or "MemoryError" in self.words or "bad_alloc" in self.words


def inherited(*names: str) -> dict[str, str]:
    """Returns those of the registry's variables that are set and not empty."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def ask(child: Child, order: bytes, *, limit_s: float) -> tuple[bytes, Ended]:
    """Gives a child its order, and returns its answer and its end. Blocks.

    Args:
        child: What is started.
        order: Its whole input.
        limit_s: Most seconds that it may take.

    Raises:
        TimeoutError: It took longer, and was ended.
    """
    try:
        done = subprocess.run(
            child.command(),
            input=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if child.is_heard else subprocess.DEVNULL,
            timeout=limit_s,
            env=child.variables(),
            cwd=child.folder(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return done.stdout, Ended(done.returncode, _text(done.stderr or b""))


class Running:
    """A child that runs.

    Args:
        process: With pipes at its input and output, and at its stderr when it is heard.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin: Final = process.stdin
        self.stdout: Final = process.stdout
        self._process: Final = process
        self._words: Final = asyncio.create_task(_last_words(process.stderr))

    async def give(self, order: bytes) -> None:
        """Writes all of its input. When it has ended already, `ended` tells why."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(order)
            await self.stdin.drain()
            self.stdin.close()

    async def answer(self, order: bytes) -> tuple[bytes, Ended]:
        """Writes all of its input, and returns its answer and its end; it reads all before it writes."""
        await self.give(order)
        return await self.stdout.read(), await self.ended()

    async def ended(self) -> Ended:
        """Waits for its end; its output is read to the end, without which asyncio never takes it for ended."""
        while await self.stdout.read(_PIECE):
            pass
        words = await asyncio.shield(self._words)
        return Ended(await self._process.wait(), words)

    def kill(self) -> None:
        """Ends it, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.stdin.close()


@asynccontextmanager
async def started(child: Child) -> AsyncGenerator[Running]:
    """Starts a child, and ends it with the block, however that is left."""
    process = await asyncio.create_subprocess_exec(
        *child.command(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if child.is_heard else asyncio.subprocess.DEVNULL,
        env=child.variables(),
        cwd=child.folder(),
        start_new_session=True,  # a Ctrl-C at the registry's terminal is the registry's to hear
        limit=child.longest_line_bytes,
    )
    running = Running(process)
    try:
        yield running
    finally:
        running.kill()
        await asyncio.shield(running.ended())


async def _last_words(stream: asyncio.StreamReader | None) -> str:
    kept = b""
    while stream is not None and (piece := await stream.read(_WORDS_KEPT)):
        kept = (kept + piece)[-_WORDS_KEPT:]
    return _text(kept)


def _text(words: bytes) -> str:
    return words[-_WORDS_KEPT:].decode(errors="replace")
