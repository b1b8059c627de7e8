"""Questions that many ask at once: asked seldom, and never answered from before they were asked."""

from __future__ import annotations

import asyncio
import random

import pytest

from services.grpckit import context
from services.scheduler import shared_asking
from services.scheduler.shared_asking import SharedAsking


class Peer:
    """A peer whose word changes; each answer is what it was when the question came to it."""

    def __init__(self) -> None:
        self.word = 0
        self.asked = 0

    async def ask(self) -> int:
        """Answers a little later."""
        self.asked += 1
        found = self.word
        for _ in range(5):
            await asyncio.sleep(0)
        return found


def test_those_who_ask_at_once_share_one_question() -> None:
    """Fifty who ask at the same moment cost one question."""

    async def run() -> None:
        peer, shared = Peer(), SharedAsking[int]()
        assert await asyncio.gather(*(shared.of("a", peer.ask) for _ in range(50))) == [0] * 50
        assert peer.asked == 1

    asyncio.run(run())


def test_those_who_come_in_the_rest_share_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow answer there is a rest; who comes in it one after the other is answered by one question."""
    monkeypatch.setattr(shared_asking, "RESTS", 1e6)
    monkeypatch.setattr(shared_asking, "LONGEST_REST_S", 0.5)  # all five come in it, also on a busy machine

    async def run() -> None:
        peer, shared = Peer(), SharedAsking[int]()

        async def slow() -> int:
            await asyncio.sleep(0.005)
            return await peer.ask()

        await shared.of("a", slow)
        came = []
        for _ in range(5):
            came.append(asyncio.ensure_future(shared.of("a", slow)))
            await asyncio.sleep(0)
        await asyncio.gather(*came)
        assert peer.asked == 2

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_no_answer_is_older_than_its_question(seed: int) -> None:
    """Whatever comes when, each hears a word that was not older than the one at the moment of asking."""

    async def run() -> None:
        chance, peer, shared = random.Random(seed), Peer(), SharedAsking[int]()

        async def client() -> None:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            before = peer.word
            assert await shared.of("a", peer.ask) >= before

        async def speaker() -> None:
            for _ in range(40):
                peer.word += 1
                await asyncio.sleep(0)

        await asyncio.gather(speaker(), *(client() for _ in range(60)))
        assert peer.asked < 30

    asyncio.run(run())


def test_one_that_leaves_takes_nobodys_answer_away() -> None:
    """The first to ask is cancelled, and the others are answered."""

    async def run() -> None:
        peer, shared = Peer(), SharedAsking[int]()
        first, second = (asyncio.create_task(shared.of("a", peer.ask)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 0
        await shared.close()

    asyncio.run(run())


def test_users_do_not_share_their_questions() -> None:
    """Two users who ask the same thing are asked for apart, each in their own name."""

    async def run() -> None:
        shared, names = SharedAsking[str](), []

        async def ask() -> str:
            names.append(context.current().actor)
            return context.current().actor

        async def client(actor: str) -> str:
            with context.background("test", actor=actor):
                return await shared.of("a", ask)

        assert [*await asyncio.gather(client("eva"), client("ada"), client("eva"))] == ["eva", "ada", "eva"]
        assert sorted(names) == ["ada", "eva"]

    asyncio.run(run())


def test_a_failure_is_told_to_all_and_asked_anew() -> None:
    """All who share a question hear of its failure, and the next question is a new one."""

    async def run() -> None:
        shared = SharedAsking[int]()

        async def fail() -> int:
            raise LookupError("gone")

        found = await asyncio.gather(*(shared.of("a", fail) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [LookupError] * 3
        assert await shared.of("a", Peer().ask) == 0

    asyncio.run(run())
