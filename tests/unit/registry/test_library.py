"""The shared parts of the registry: readings that are shared, and what is left open when callers leave."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.library import Library
from tests.support.event_loop import on_loop
from tests.support.library import open_library, store, stored
from tests.support.tiny_model import write_rows


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Gives the open parts of a registry."""
    with open_library(tmp_path / "data") as library:
        yield library


def test_calls_for_one_file_share_its_reading(library: Library, tmp_path: Path) -> None:
    """Callers at the same time and later get the same report, and one who leaves does not end it for the others."""
    digest = stored(library, write_rows(tmp_path / "rows.jsonl", 500).read_bytes())

    @on_loop
    async def check() -> None:
        callers = [asyncio.create_task(library.report_on(digest)) for _ in range(4)]
        await asyncio.sleep(0)  # hand over, so that all of them wait
        callers[0].cancel()
        reports = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(reports[0], asyncio.CancelledError)
        assert all(report is reports[1] for report in reports[2:])
        assert await library.report_on(digest) is reports[1]

    check()


def test_a_reading_that_failed_is_tried_again(library: Library, tmp_path: Path) -> None:
    """A file that could not be read once is not given up for ever."""
    rows = write_rows(tmp_path / "rows.jsonl").read_bytes()
    digest = hashlib.sha256(rows).hexdigest()

    @on_loop
    async def check() -> None:
        with pytest.raises(ServiceError) as caught:
            await library.report_on(digest)
        assert caught.value.reason is Reason.BLOB_DAMAGED
        await store(library, rows)
        assert (await library.report_on(digest)).rows == 8

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
