"""A TCP proxy that stands for the network between two peers: it can hold what goes one way, or cut everything.

async with tcp_proxy(trainer.address) as proxy:
proxy.hold(to_server=True)     # what is sent to the server waits; its own words still come through
proxy.heal()                   # all that waited arrives, late and in order, as after retransmissions
await proxy.cut()              # every connection is broken and new ones are refused until `heal`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_PIECE = 65536


@dataclass
class TcpProxy:
    """A running proxy."""

    upstream: str
    address: str = ""
    is_cut: bool = False
    carried: list[int] = field(default_factory=lambda: [0, 0])
    """Bytes that went to the server and came from it."""
    _to_server: asyncio.Event = field(default_factory=asyncio.Event)
    _from_server: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.heal()

    def hold(self, *, to_server: bool = False, from_server: bool = False) -> None:
        """Holds what goes one way, or both."""
        if to_server:
            self._to_server.clear()
        if from_server:
            self._from_server.clear()

    def heal(self) -> None:
        """Lets everything through."""
        self.is_cut = False
        self._to_server.set()
        self._from_server.set()

    async def cut(self) -> None:
        """Breaks every connection."""
        self.is_cut = True
        await self.close()

    async def close(self) -> None:
        """Ends what is carried."""
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self.is_cut:
                return
            host, _, port = self.upstream.rpartition(":")
            from_server, upstream = await asyncio.open_connection(host, int(port))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, upstream, self._to_server, 0))
                group.create_task(self._carry(from_server, writer, self._from_server, 1))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in (writer, upstream):
                if each is not None:
                    each.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, way: int
    ) -> None:
        while piece := await reader.read(_PIECE):
            await gate.wait()
            writer.write(piece)
            await writer.drain()
            self.carried[way] += len(piece)
        raise ConnectionResetError


@asynccontextmanager
async def tcp_proxy(upstream: str) -> AsyncIterator[TcpProxy]:
    """Serves a proxy in front of `host:port` on loopback while the block runs."""
    proxy = TcpProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.heal()
        await proxy.close()
        with suppress(asyncio.CancelledError):
            await server.wait_closed()
