"""Who needs a version: promotions and descendants by the graph, but not what is deleted, nor what goes with it."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from services.grpckit.errors import ServiceError
from services.registry.lineage.sealing import _require_living
from services.registry.lineage.store import add_edges
from services.registry.lineage.things import Role
from services.registry.retention.holders import holders_of, living
from services.registry.retention.resources import Holder, HolderKind
from services.registry.tables import MODEL_VERSIONS, MODELS
from tests.support.event_loop import on_loop
from tests.support.library import open_library
from tuneforge.names import ModelName

MODEL = ModelName("p", "m")
FIRST, SECOND, THIRD = (MODEL.version(number) for number in (1, 2, 3))
PROMOTION = f"{FIRST}/promotion"


def _fill(connection: Connection) -> None:
    """Makes three versions, each from the one before, and promotes the first."""
    row = {"project": "p", "description": "", "create_time_us": 1, "creator": "x"}
    connection.execute(insert(MODELS).values(id="m", latest=3, **row))
    for name in (FIRST, SECOND, THIRD):
        connection.execute(
            insert(MODEL_VERSIONS).values(
                project="p",
                model="m",
                version=name.version,
                digest="0" * 64,
                kind="MODEL",
                size_bytes=0,
                record=b"",
                tensors=b"",
                create_time_us=1,
                creator="x",
            )
        )
    add_edges(connection, str(SECOND), [(str(FIRST), Role.BASE)])
    add_edges(connection, str(THIRD), [(str(SECOND), Role.BASE)])
    add_edges(connection, PROMOTION, [(str(FIRST), Role.PROMOTION)])
    add_edges(connection, "projects/p/jobs/j", [(str(FIRST), Role.BASE)])  # a job that has ended needs nothing


def _bury_second(connection: Connection) -> None:
    connection.execute(update(MODEL_VERSIONS).where(MODEL_VERSIONS.c.version == 2).values(delete_time_us=2))


def test_promotions_and_living_descendants_hold_a_version(tmp_path: Path) -> None:
    """Only what is made from it directly is named; a deleted one, and those deleted together, hold nothing."""

    @on_loop
    async def check() -> None:
        database = library.database
        await database.write(_fill)
        promotion, second = Holder(PROMOTION, HolderKind.PROMOTION), Holder(str(SECOND), HolderKind.VERSION)
        assert await database.read(lambda c: holders_of(c, [FIRST])) == sorted([promotion, second])
        assert await database.read(lambda c: holders_of(c, [SECOND])) == [Holder(str(THIRD), HolderKind.VERSION)]
        assert await database.read(lambda c: holders_of(c, [FIRST, SECOND, THIRD])) == [promotion]
        await database.write(_bury_second)
        alive = await database.read(lambda c: set(living(c, {str(name) for name in (FIRST, SECOND, THIRD)})))
        assert alive == {str(FIRST), str(THIRD)}
        assert await database.read(lambda c: holders_of(c, [FIRST])) == [promotion]

    with open_library(tmp_path) as library:
        check()


def test_nothing_is_made_from_what_was_deleted_meanwhile(tmp_path: Path) -> None:
    """A base that goes between its look-up and the publication is told as a field; the transaction makes nothing."""

    @on_loop
    async def check() -> None:
        await library.database.write(_fill)
        inputs = [(str(FIRST), Role.BASE), (str(SECOND), Role.VALIDATION)]
        await library.database.read(lambda c: _require_living(c, inputs))
        await library.database.write(_bury_second)
        with pytest.raises(ServiceError) as caught:
            await library.database.read(lambda c: _require_living(c, inputs))
        assert [violation.field for violation in caught.value.fields] == ["lineage.validation.version"]

    with open_library(tmp_path) as library:
        check()
