"""Holds follow what there is: nothing that exists goes unheld, and nothing is held for ever for what is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.holding import Held, Holding
from services.grpckit.version_holds import VersionHolds
from tests.support.event_loop import on_loop

JOB, OTHER = "projects/p/jobs/one", "projects/p/jobs/two"


class Keeper:
    """Keeps holds in memory, gives other tasks their turn in every call, and may stand still or fail."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        """Set when a call stands before the gate."""
        self.fault: ServiceError | None = None

    async def _turn(self) -> None:
        self.waiting.set()
        await self.gate.wait()
        self.waiting.clear()
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault

    async def hold(self, holder: str, names: Collection[str]) -> None:
        """As `HoldKeeper.hold`."""
        await self._turn()
        self.pairs.update((holder, name) for name in names)

    async def release(self, held: Mapping[str, Collection[str]]) -> None:
        """As `HoldKeeper.release`."""
        await self._turn()
        self.pairs = {(holder, name) for holder, name in self.pairs if name not in (held.get(holder, [""]) or [name])}

    async def held(self) -> Held:
        """As `HoldKeeper.held`."""
        found = frozenset(self.pairs)
        await self._turn()
        return found


class Things:
    """What a service's database has: holder -> what it needs."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}

    async def wanted(self) -> Held:
        """Returns what all of them need."""
        found = frozenset((holder, name) for holder, names in self.rows.items() for name in names)
        await asyncio.sleep(0)
        return found

    async def add(self, holder: str, names: list[str]) -> str:
        """Writes a thing."""
        await asyncio.sleep(0)
        self.rows[holder] = names
        return holder


def of(keeper: Keeper, things: Things) -> Holding:
    """Returns the holds of the things."""
    return Holding(keeper, things.wanted, every_s=60.0, pause_s=0.0)


@on_loop
async def test_a_round_makes_what_is_missing_and_takes_back_what_is_too_much() -> None:
    """Whatever went wrong before: afterwards what is held is what there is."""
    keeper, things = Keeper(), Things()
    things.rows = {JOB: ["v/1", "v/2"]}
    keeper.pairs = {(JOB, "v/2"), (JOB, "v/3"), (OTHER, "v/1")}
    await of(keeper, things).settle()
    assert keeper.pairs == await things.wanted()


@on_loop
async def test_what_has_ended_is_taken_back_without_a_comparison() -> None:
    """All that it holds goes in one call with that of others; what is made again under its name keeps its hold."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    keeper.pairs = {(JOB, "v/1"), (JOB, "v/2"), (OTHER, "v/1"), ("projects/p/jobs/three", "v/1")}
    holding.ended([JOB, "projects/p/jobs/three", OTHER])
    await holding.make(OTHER, ["v/3"], lambda: things.add(OTHER, ["v/3"]))
    await holding.release_ended()
    assert keeper.pairs == {(OTHER, "v/1"), (OTHER, "v/3")}
    await holding.settle()
    assert keeper.pairs == {(OTHER, "v/3")}


@on_loop
async def test_what_needs_nothing_costs_no_comparison() -> None:
    """A thing that has ended in the very write that made it holds nothing: nothing is compared for its sake."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    compared, released = 0, asyncio.Event()

    async def held() -> Held:
        nonlocal compared
        compared += 1
        return await Keeper.held(keeper)

    async def release(held: Mapping[str, Collection[str]]) -> None:
        await Keeper.release(keeper, held)
        released.set()

    keeper.held, keeper.release = held, release  # type: ignore[method-assign]
    rounds = asyncio.create_task(holding.run_for_ever())

    async def write() -> None:
        holding.ended([JOB])
        for _ in range(20):  # it is told before the write has come back
            await asyncio.sleep(0)

    await keeper.waiting.wait()
    await holding.make(JOB, [], write)
    await released.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert compared == 1
    rounds.cancel()


@on_loop
async def test_what_is_refused_is_not_written() -> None:
    """No hold, no thing; and a thing that cannot be written gives its hold back in the next round."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    keeper.fault = not_found("version", "v/1")
    with pytest.raises(ServiceError):
        await holding.make(JOB, ["v/1"], lambda: things.add(JOB, ["v/1"]))
    assert not things.rows
    keeper.fault = None

    async def fails() -> None:
        raise ServiceError("ALREADY_EXISTS", "there is one")

    with pytest.raises(ServiceError):
        await holding.make(JOB, ["v/1"], fails)
    assert keeper.pairs == {(JOB, "v/1")}
    await holding.settle()
    assert not keeper.pairs


@on_loop
async def test_a_round_that_looked_before_does_not_take_back_what_was_made_since() -> None:
    """A hold left over for the same holder is in the round's list; the thing comes while the round waits."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    keeper.pairs = {(JOB, "v/1")}
    keeper.gate.clear()
    round_ = asyncio.create_task(holding.settle())
    await keeper.waiting.wait()
    making = asyncio.create_task(holding.make(JOB, ["v/1"], lambda: things.add(JOB, ["v/1"])))
    keeper.gate.set()
    await asyncio.gather(round_, making)
    assert keeper.pairs == {(JOB, "v/1")}


@on_loop
async def test_a_hold_waits_for_a_release_of_the_same_holder() -> None:
    """The answer to a release that was sent before must not take the new hold with it."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    keeper.pairs = {(JOB, "v/1")}
    released = asyncio.Event()

    async def release(held: Mapping[str, Collection[str]]) -> None:
        released.set()
        await asyncio.sleep(0)
        await Keeper.release(keeper, held)

    keeper.release = release  # type: ignore[method-assign]
    round_ = asyncio.create_task(holding.settle())
    await released.wait()
    await holding.make(JOB, ["v/1"], lambda: things.add(JOB, ["v/1"]))
    await round_
    assert keeper.pairs == {(JOB, "v/1")}


@on_loop
async def test_a_caller_who_leaves_ends_neither_hold_nor_thing() -> None:
    """What was begun is finished, and is held."""
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    keeper.gate.clear()
    call = asyncio.create_task(holding.make(JOB, ["v/1"], lambda: things.add(JOB, ["v/1"])))
    await keeper.waiting.wait()
    call.cancel()
    keeper.gate.set()
    await holding.close()
    await holding.settle()
    assert (things.rows, keeper.pairs) == ({JOB: ["v/1"]}, {(JOB, "v/1")})


@given(seed=st.integers(0, 2**32))
def test_at_no_moment_is_something_there_that_is_not_held(seed: int) -> None:
    """Things come and go in any order beside rounds: each is held while it is there; in the end nothing else is."""
    asyncio.run(_live(random.Random(seed)))


async def _live(chance: random.Random) -> None:
    keeper, things = Keeper(), Things()
    holding = of(keeper, things)
    holders = [f"projects/p/jobs/{number}" for number in range(3)]
    keeper.pairs = {(chance.choice(holders), f"v/{number}") for number in range(2)}

    async def make() -> None:
        holder, names = chance.choice(holders), [f"v/{chance.randrange(3)}"]
        if holder not in things.rows:
            await holding.make(holder, names, lambda: _unless_there(things, holder, names))

    async def end() -> None:
        if things.rows:
            gone = chance.choice(sorted(things.rows))
            del things.rows[gone]
            if chance.random() < 0.5:  # else it is not told, as after a kill
                holding.ended([gone])

    async def look() -> None:
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        wanted = {(holder, name) for holder, names in things.rows.items() for name in names}
        assert wanted <= keeper.pairs

    steps = [chance.choice([make, make, end, look, holding.settle, holding.release_ended])() for _ in range(20)]
    done = await asyncio.gather(*steps, return_exceptions=True)
    assert not [each for each in done if isinstance(each, AssertionError)]
    await holding.settle()
    await holding.settle()  # the first one may leave alone what came while it looked
    assert keeper.pairs == await things.wanted()


async def _unless_there(things: Things, holder: str, names: list[str]) -> None:
    if holder in things.rows:
        raise ServiceError("ALREADY_EXISTS", "there is one")
    await things.add(holder, names)


@on_loop
async def test_nobody_waits_for_an_owner_that_cannot_be_read() -> None:
    """Who asks for a hold hears why there is none; the next one asks anew."""

    async def owner() -> str:
        raise ServiceError(Reason.STORAGE_UNAVAILABLE, "the database is away")

    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel, asyncio.timeout(30):
        keeper = VersionHolds(channel, owner)
        for holders in ([JOB, OTHER], [JOB]):
            asked = [keeper.hold(holder, ["projects/p/models/m/versions/1"]) for holder in holders]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [str(each) for each in found] == ["the database is away"] * len(holders)
