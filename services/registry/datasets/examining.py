"""Has rows read in a process of their own (`examiner.py`), and shares what was found between calls."""

import asyncio
import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from services.grpckit.parent import END_WITH_PARENT
from services.registry.models.files import Folder

_ROOT: Final = Path(__file__).parents[3]
LONGEST_S: Final = 3000.0
"""Long enough for the largest files; a call whose own deadline ends before finds the reading going on when it is made
again."""
FINDINGS_KEPT: Final = 256
"""Findings that are kept in memory, so that a call repeated after its deadline finds the work done."""

Found = dict[str, Any]
"""What the examiner answers."""


class Exhausted(Exception):
    """The examiner was ended for the memory or the time that it took."""


class Examinations:
    """Readings that go on or are done, by what is read."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, asyncio.Future[Found]] = OrderedDict()

    async def share(self, key: str, read: Callable[[], Awaitable[Found]]) -> Found:
        """Returns what was found; calls for the same key share one reading, and one who leaves does not end it.

        Args:
            key: What is read, and how.
            read: Reads it, when nobody has or does.
        """
        future = self._running.get(key)
        if future is None:
            future = asyncio.ensure_future(read())
            self._running[key] = future
            if len(self._running) > FINDINGS_KEPT:
                self._running.popitem(last=False)
        self._running.move_to_end(key)
        try:
            return await asyncio.shield(future)
        except Exception:
            self._running.pop(key, None)
            raise


def ask(folder: Folder, order: dict[str, Any]) -> Found:
    """Has an order done in a process of its own. Blocks.

    Args:
        folder: The files.
        order: As `examiner.run`, without `files`.

    Raises:
        Exhausted: the process was ended for the memory or the time that it took.
    """
    files = [[path, str(local)] for path, local in sorted(folder.paths.items())]
    # Without the service's own environment, which holds secrets; with small arenas and one thread for native code.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(_ROOT),
        "TMPDIR": os.environ.get("TMPDIR", ""),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
        "ARROW_IO_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        END_WITH_PARENT: str(os.getpid()),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "services.registry.datasets.examiner"],
            input=json.dumps({**order, "files": files}).encode(),
            capture_output=True,
            timeout=LONGEST_S,
            env={name: value for name, value in environment.items() if value},
            cwd=_ROOT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Exhausted from None
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if done.returncode < 0 or b"MemoryError" in done.stderr or b"bad_alloc" in done.stderr:
        raise Exhausted
    raise RuntimeError(f"the examiner of rows failed: {done.stderr[-2000:].decode(errors='replace')}")
