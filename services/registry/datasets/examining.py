"""Has rows read in a process of their own (`examiner.py`), and shares what was found between calls."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from services.registry import child_process
from services.registry.child_process import Child, inherited
from services.registry.models.files import Folder

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
    # The environment is for native code: small arenas and one thread.
    child = Child(
        module="services.registry.datasets.examiner",
        environment={
            **inherited("TMPDIR"),
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "OMP_NUM_THREADS": "1",
            "ARROW_IO_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
        },
    )
    try:
        answer, end = child_process.ask(child, json.dumps({**order, "files": files}).encode(), limit_s=LONGEST_S)
    except TimeoutError:
        raise Exhausted from None
    if end.code == 0:
        return dict(json.loads(answer))
    if end.is_exhausted:
        raise Exhausted
    raise RuntimeError(f"the examiner of rows failed: {end.words}")
