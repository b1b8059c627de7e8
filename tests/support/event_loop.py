"""Async tests: each in an event loop of its own, bounded in time, leaving no task behind."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

from tests.support.patience import WAIT_LIMIT_S

P = ParamSpec("P")
ENDING_S = 30.0
"""How long the tasks of what was closed may take to end, on a machine that is busy with others."""


def on_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an async test in a fresh event loop, and fails it when tasks of its own are still there at its end."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(WAIT_LIMIT_S):
                await test(*args, **kwargs)
                await _expect_no_tasks()

        asyncio.run(bounded())

    return run


async def _expect_no_tasks() -> None:
    mine = asyncio.current_task()
    leaked = {task for task in asyncio.all_tasks() if task is not mine}
    if leaked:  # gRPC ends its own tasks shortly after a channel or server is closed
        await asyncio.wait(leaked, timeout=ENDING_S)
    names = [repr(task.get_coro()) for task in leaked if not task.done()]
    assert not names, f"tasks were left behind: {names}"
