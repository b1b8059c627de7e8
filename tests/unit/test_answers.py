"""Answers from memory: never an old one after a commit was acknowledged, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from services.grpckit.database.answers import Answers
from services.grpckit.errors import ServiceError, not_found
from services.registry.collections import Collection, create_collection
from services.registry.tables import MODELS
from tests.support.postgres import EACH_DATABASE
from tests.support.registry_rows import registry_rows
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2

pytestmark = EACH_DATABASE


def request(text: str = "p") -> models_pb2.ListModelsRequest:
    """Returns a request of which nothing but its content counts."""
    return models_pb2.ListModelsRequest(parent=text)


def count(connection: Connection) -> models_pb2.Model:
    """Returns how many models there are, in a message."""
    number = connection.execute(select(func.count()).select_from(MODELS)).scalar_one()
    return models_pb2.Model(description=str(number))


def add(name: str) -> Callable[[Connection], Collection]:
    """Returns a write that makes a model."""
    collection = Collection(name=ModelName("p", name), description="", create_time_us=1, creator="me")
    return lambda connection: create_collection(connection, collection)


def told(content: bytes) -> int:
    """Returns the number in an answer."""
    return int(models_pb2.Model.FromString(content).description)


def test_an_answer_holds_until_the_next_commit(tmp_path: Path) -> None:
    """The same request is answered from memory; once a write was acknowledged, its effect is in the answer."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database)

        async def work() -> None:
            for number in range(4):
                for hit in (0, 1, 1):
                    before = answers.hits
                    assert told(await answers.of(request(), count)) == number
                    assert answers.hits - before == hit
                await database.write(add(f"m{number}"))

        asyncio.run(work())


def test_a_write_that_no_answer_tells_of_leaves_them(tmp_path: Path) -> None:
    """Answers stay in memory over a write that says that it changes none of them, and over no other."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database)

        async def work() -> None:
            assert told(await answers.of(request(), count)) == 0
            await database.write(lambda _: None, is_unseen=True)
            assert told(await answers.of(request(), count)) == 0
            assert answers.hits == 1
            await asyncio.gather(database.write(lambda _: None, is_unseen=True), database.write(add("m")))
            assert told(await answers.of(request(), count)) == 1
            assert answers.hits == 1

        asyncio.run(work())


def test_many_readers_beside_a_writer_see_every_acknowledged_write(tmp_path: Path) -> None:
    """While writes go on, no answer is older than what had been acknowledged when it was asked for."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database)
        acknowledged = 0

        async def read() -> None:
            while acknowledged < 20:
                least = acknowledged
                assert told(await answers.of(request(), count)) >= least

        async def write() -> None:
            nonlocal acknowledged
            for number in range(20):
                await database.write(add(f"m{number}"))
                acknowledged = number + 1

        async def work() -> None:
            await asyncio.gather(write(), *(read() for _ in range(4)))

        asyncio.run(work())


def test_a_commit_during_the_read_makes_its_answer_old(tmp_path: Path) -> None:
    """What was read before a commit is not given after it, though it was kept after it."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database)

        def count_then_commit(connection: Connection) -> models_pb2.Model:
            found = count(connection)
            database.write_sync(add("late"))
            return found

        async def work() -> list[int]:
            return [told(await answers.of(request(), read)) for read in (count_then_commit, count)]

        assert asyncio.run(work()) == [0, 1]


def test_refusals_are_not_kept_and_requests_are_told_apart(tmp_path: Path) -> None:
    """An error is raised anew each time; another request is another answer."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database)

        def refuse(_: Connection) -> models_pb2.Model:
            raise not_found("model", "m")

        async def work() -> None:
            for _ in range(2):
                with pytest.raises(ServiceError):
                    await answers.of(request(), refuse)
            await answers.of(request(), count)
            other = await answers.of(request("q"), lambda _: models_pb2.Model(description="7"))
            assert told(other) == 7
            assert answers.hits == 0

        asyncio.run(work())


def test_memory_is_bounded(tmp_path: Path) -> None:
    """The answers used longest ago make room; one that is larger than everything is not kept at all."""
    with registry_rows(tmp_path) as database:
        answers = Answers(database, kept_bytes=1000)

        async def ask(key: int, size: int) -> None:
            await answers.of(request(str(key)), lambda _: models_pb2.Model(description="x" * size))

        async def work() -> None:
            for key in range(10):
                await ask(key, 300)
            await ask(9, 300)
            assert answers.hits == 1
            await ask(0, 300)
            assert answers.hits == 1
            await ask(11, 5000)
            await ask(11, 5000)
            assert answers.hits == 1
            assert answers._size <= 1000

        asyncio.run(work())
