"""The work on promotions: what is asked for while the work is just ending is done all the same."""

import asyncio
from typing import cast

from services.registry.library import Library
from services.registry.promotions.promoter import Promoter
from tests.support.event_loop import on_loop
from tuneforge.names import ModelVersionName

VERSION = ModelVersionName("default", "tiny", 1)


class SlowLook(Promoter):
    """Its first look at the state takes until it is let go, and finds that there is nothing to do."""

    def __init__(self) -> None:
        super().__init__(cast("Library", None), None)  # only `_step` uses the library
        self.looks: list[ModelVersionName] = []
        self.looking, self.go_on = asyncio.Event(), asyncio.Event()

    async def _step(self, version: ModelVersionName) -> bool:
        self.looks.append(version)
        self.looking.set()
        await self.go_on.wait()
        return False


@on_loop
async def test_a_submission_during_the_last_look_is_looked_at() -> None:
    """The state may have changed after the look read it: so there is another look, and only one."""
    promoter = SlowLook()
    promoter.submit(VERSION)
    await promoter.looking.wait()
    promoter.submit(VERSION)
    promoter.submit(VERSION)
    promoter.go_on.set()
    await asyncio.gather(*promoter._work.values())
    assert promoter.looks == [VERSION] * 2
    promoter.submit(VERSION)
    await asyncio.gather(*promoter._work.values())
    assert promoter.looks == [VERSION] * 3
    await promoter.stop()
