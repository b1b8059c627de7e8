"""`WatchAliases` over a real socket: a snapshot, then every move once, also across restarts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.contract.test_registry_aliases import ALIAS, MODEL, registry_with_versions, to
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, RunningRegistry, fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

pytestmark = EACH_DATABASE


class Watch:
    """An open watch of which one message is read at a time."""

    def __init__(self, registry: RunningRegistry, **fields: object) -> None:
        request = pb.WatchAliasesRequest(**{"parent": PROJECT, **fields})  # type: ignore[arg-type]
        self.call = registry.stub.WatchAliases(request)
        self.token = ""
        self._messages = aiter(self.call)

    async def next(self) -> pb.WatchAliasesResponse:
        """Returns the next message."""
        message = await anext(self._messages)
        self.token = message.resume_token or self.token
        return message

    async def snapshot(self) -> dict[str, str]:
        """Reads the whole snapshot: alias -> version."""
        found: dict[str, str] = {}
        while True:
            message = await self.next()
            assert message.WhichOneof("payload") == "snapshot"
            found |= {each.name: each.version for each in message.snapshot.aliases}
            if message.snapshot.is_complete:
                return found
            assert not message.resume_token

    async def moves(self, count: int) -> list[tuple[str, int]]:
        """Reads so many moves: alias id and number."""
        found: list[tuple[str, int]] = []
        while len(found) < count:
            message = await self.next()
            found += [(each.name.rpartition("/")[2], each.sequence) for each in message.changes.changes]
        return found


@asynccontextmanager
async def watching(registry: RunningRegistry, **fields: object) -> AsyncIterator[Watch]:
    """Opens a watch and cancels it at the end of the block."""
    watch = Watch(registry, **fields)
    try:
        yield watch
    finally:
        watch.call.cancel()


@on_loop
async def test_a_watch_begins_with_what_is_and_tells_every_move(tmp_path: Path) -> None:
    """The snapshot has the aliases as they are; then each move comes once, in order, with all that the log has."""
    async with registry_with_versions(tmp_path) as registry:
        await registry.stub.SetAlias(to(1))
        async with watching(registry) as watch, watching(registry, parent=MODEL) as of_model:
            assert await watch.snapshot() == {ALIAS: f"{MODEL}/versions/1"}
            await of_model.snapshot()
            await registry.stub.SetAlias(to(2, reason="better"))
            message = await watch.next()
            [move] = message.changes.changes
            assert (move.name, move.sequence, move.reason) == (ALIAS, 2, "better")
            log = await registry.stub.ListAliasChanges(pb.ListAliasChangesRequest(parent=ALIAS))
            assert move == log.changes[0]
            other = await registry.model("other")
            await registry.imported(other, tmp_path / "0")
            request = pb.SetAliasRequest(name=f"{other}/aliases/beta", version=f"{other}/versions/1")
            await registry.stub.SetAlias(request)
            await registry.stub.DeleteAlias(pb.DeleteAliasRequest(name=ALIAS))
            assert await watch.moves(2) == [("beta", 1), ("production", 3)]
            assert await of_model.moves(2) == [("production", 2), ("production", 3)]


@on_loop
async def test_a_watch_goes_on_after_restarts_without_gap_or_repeat(tmp_path: Path) -> None:
    """The registry is ended and started again between moves: the tokens lead from one watch to the next."""
    async with registry_with_versions(tmp_path) as registry:
        async with watching(registry) as watch:
            assert await watch.snapshot() == {}
        token, found = watch.token, list[tuple[str, int]]()
        await registry.stub.SetAlias(to(1))
    for restart in range(3):
        async with running_registry(tmp_path / "data") as registry, watching(registry, resume_token=token) as watch:
            found += await watch.moves(1)
            await registry.stub.SetAlias(to(1 + (restart + 1) % 2))
            await registry.stub.SetAlias(to(1 + restart % 2, name=f"{MODEL}/aliases/staging"))
            found += await watch.moves(1)
            token = watch.token
    numbers = {alias: [number for each, number in found if each == alias] for alias in ("production", "staging")}
    assert numbers == {"production": [1, 2, 3, 4], "staging": [1, 2]}


@on_loop
async def test_a_draining_registry_hands_the_watch_over(tmp_path: Path) -> None:
    """The last message says so and carries a token with which the next registry goes on."""
    async with registry_with_versions(tmp_path) as registry:
        channel = grpc.aio.insecure_channel(registry.address)  # outlives the registry
        watch = Watch(replace(registry, stub=RegistryServiceStub(channel)))
        await watch.snapshot()
        await registry.stub.SetAlias(to(1))
        await watch.moves(1)
        ending = asyncio.create_task(watch.next())
    assert (await ending).WhichOneof("payload") == "end"
    await channel.close()
    async with running_registry(tmp_path / "data") as registry, watching(registry, resume_token=watch.token) as again:
        await registry.stub.SetAlias(to(2))
        assert await again.moves(1) == [("production", 2)]


@on_loop
async def test_a_quiet_watch_has_a_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing moves, messages still come, and their token is good."""
    monkeypatch.setattr("services.registry.aliases.watch.HEARTBEAT_S", 0.05)
    async with registry_with_versions(tmp_path) as registry, watching(registry) as watch:
        await watch.snapshot()
        assert (await watch.next()).WhichOneof("payload") == "heartbeat"
        async with watching(registry, resume_token=watch.token) as again:
            await registry.stub.SetAlias(to(1))
            assert await again.moves(1) == [("production", 1)]


@on_loop
async def test_a_slow_reader_gets_the_log_in_small_pieces(tmp_path: Path) -> None:
    """A watch that begins at an old token reads the log in batches of the size that it asks for."""
    async with registry_with_versions(tmp_path) as registry:
        async with watching(registry) as watch:
            await watch.snapshot()
        for number in range(7):
            await registry.stub.SetAlias(to(1 + number % 2))
        async with watching(registry, resume_token=watch.token, max_batch=3) as slow:
            sizes = [len((await slow.next()).changes.changes) for _ in range(3)]
            assert sizes == [3, 3, 1]


@on_loop
async def test_wrong_watches_are_refused(tmp_path: Path) -> None:
    """Foreign and broken tokens, tokens of the future, unknown models and too large batches each have their reason."""
    async with registry_with_versions(tmp_path) as registry:
        async with watching(registry) as watch:
            await watch.snapshot()
            foreign = Watch(registry, parent=MODEL, resume_token=watch.token)
            await refused(foreign.next(), Reason.INVALID_RESUME_TOKEN)
        await refused(Watch(registry, resume_token="%%%").next(), Reason.INVALID_RESUME_TOKEN)
        await registry.stub.SetAlias(to(1))
        async with watching(registry) as watch:
            await watch.snapshot()
        newer = watch.token
        await refused(Watch(registry, parent=f"{PROJECT}/models/none").next(), Reason.NOT_FOUND)
        await refused(Watch(registry, parent="nodes/a").next(), Reason.INVALID_NAME)
        error = await refused(Watch(registry, max_batch=1001).next(), Reason.INVALID_FIELD)
        assert fields_of(error) == ["max_batch"]
    async with registry_with_versions(tmp_path / "other") as registry:
        await refused(Watch(registry, resume_token=newer).next(), Reason.CURSOR_OUT_OF_RANGE)
