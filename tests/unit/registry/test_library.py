"""The shared parts of the registry: readings that are shared, and what is left open when callers leave."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.datasets.examining import Examinations, Found, ask
from services.registry.library import Library
from tests.support.event_loop import on_loop
from tests.support.library import open_library, store
from tests.support.tiny_model import write_rows
from tuneforge.manifest import Manifest, ManifestFile


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Gives the open parts of a registry."""
    with open_library(tmp_path / "data") as library:
        yield library


def test_calls_for_one_content_share_its_reading() -> None:
    """Callers at the same time and later get the same findings, and one who leaves does not end it for the others."""
    examinations, may_end, readings = Examinations(), asyncio.Event(), list[int]()

    async def read() -> Found:
        readings.append(1)
        await may_end.wait()
        return {"rows": 8}

    @on_loop
    async def check() -> None:
        callers = [asyncio.create_task(examinations.share("a", read)) for _ in range(4)]
        await asyncio.sleep(0)  # hand over, so that all of them wait
        callers[0].cancel()
        may_end.set()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert found[1:] == [{"rows": 8}] * 3
        assert await examinations.share("a", read) is found[1]
        assert readings == [1]

    check()


def test_a_reading_that_failed_is_tried_again(library: Library, tmp_path: Path) -> None:
    """Files that could not be read once are not given up for ever."""
    rows = write_rows(tmp_path / "rows.jsonl").read_bytes()
    file = ManifestFile(path="rows.jsonl", sha256=hashlib.sha256(rows).hexdigest(), size_bytes=len(rows))
    manifest = Manifest.of([file])

    async def read() -> Found:
        async with library.fetched(manifest) as folder:
            return await library.check(ask, folder, {"kind": "examine", "split": [0.0, 0]})

    @on_loop
    async def check() -> None:
        with pytest.raises(ServiceError) as caught:
            await library.examinations.share(manifest.digest, read)
        assert caught.value.reason is Reason.BLOB_DAMAGED
        await store(library, rows)
        found = await library.examinations.share(manifest.digest, read)
        assert found["statistics"]["rows"] == 8

    check()


def test_what_a_cancelled_caller_opened_is_closed(library: Library) -> None:
    """The thread that opens is not stopped by a cancellation; what it opened is closed all the same."""
    may_open, closed = threading.Event(), threading.Event()

    class Opened:
        def close(self) -> None:
            closed.set()

    def slow_open() -> Opened:
        may_open.wait()
        return Opened()

    @on_loop
    async def check() -> None:
        opening = asyncio.create_task(library.open(slow_open))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        may_open.set()
        assert await asyncio.to_thread(closed.wait, 10)

    check()
