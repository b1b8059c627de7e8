"""Pieces of an upload on their way to the disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.grpckit.errors import Reason, ServiceError
from services.registry.blobs import transfers
from tests.support.event_loop import on_loop
from tests.support.library import open_library

SIZE = 1000
DIGEST = hashlib.sha256(b"x" * SIZE).hexdigest()


@on_loop
async def test_a_piece_that_is_refused_ends_the_upload(tmp_path: Path) -> None:
    """Also where the next one comes only after it was refused."""

    async def pieces() -> AsyncIterator[bytes]:
        others = asyncio.all_tasks()
        yield b"x" * (SIZE + 1)
        await asyncio.sleep(0)  # it is on its way to the disk
        await asyncio.wait(asyncio.all_tasks() - others)
        yield b"x"

    arrival = transfers.Arrival(project="p", key=DIGEST, size_bytes=SIZE, offset=0, sha256=DIGEST)
    with open_library(tmp_path) as library, pytest.raises(ServiceError) as caught:
        async with asyncio.timeout(30):
            await transfers.receive(library, arrival, pieces())
    assert caught.value.reason is Reason.DIGEST_MISMATCH
