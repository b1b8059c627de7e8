"""Has rows read in a process of their own (`examiner.py`)."""

import json
from typing import Any, Final

from services.registry import child_process
from services.registry.child_process import Child, inherited
from services.registry.folder import Folder
from services.registry.shared_work import SharedWork

LONGEST_S: Final = 3000.0
"""Long enough for the largest files; a call whose own deadline ends before finds the reading going on when it is made
again."""

Found = dict[str, Any]
"""What the examiner answers."""
Examinations = SharedWork[str, Found]
"""Readings that go on or are done, by what is read and how."""


class Exhausted(Exception):
    """The examiner was ended for the memory or the time that it took."""


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
