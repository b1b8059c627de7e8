"""Messages of versions from memory: never an old one after facts were changed, and bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import Connection

from services.grpckit.pages import Page
from services.registry.models.fact_store import change_facts, get_facts
from services.registry.models.filters import Order
from services.registry.models.listing import Wanted, list_versions
from services.registry.models.messages import VersionMessages
from tests.support.postgres import EACH_DATABASE
from tests.support.registry_rows import add_versions, registry_rows
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2

pytestmark = EACH_DATABASE

MODEL = ModelName("p", "m")
NEWEST_FIRST = Wanted(
    filter=models_pb2.ModelFilter(),
    order=Order(key="date", metric="", is_descending=True),
    page=Page(scope="", size=10, after=None),
)


def page(connection: Connection, messages: VersionMessages) -> list[models_pb2.ModelVersion]:
    """Returns the versions of the model, newest first."""
    listed = list_versions(connection, MODEL, NEWEST_FIRST)
    return [models_pb2.ModelVersion.FromString(content) for content in messages.of(connection, MODEL, listed)]


def describe(connection: Connection, number: int, words: str) -> None:
    """Changes the description of a version."""
    facts = get_facts(connection, MODEL, number)
    change_facts(connection, MODEL, number, replace(facts, description=words, revision=facts.revision + 1))


def test_changed_facts_are_shown_and_the_rest_comes_from_memory(tmp_path: Path) -> None:
    """After a change the list shows it, and what was not changed is not made again."""
    messages = VersionMessages()
    with registry_rows(tmp_path) as database:
        database.write_sync(lambda connection: add_versions(connection, MODEL, 3))
        before = database.read_sync(lambda connection: page(connection, messages))
        assert [version.name.rpartition("/")[2] for version in before] == ["3", "2", "1"]
        database.write_sync(lambda connection: describe(connection, 2, "better"))
        after = database.read_sync(lambda connection: page(connection, messages))
        assert [version.description for version in after] == ["", "better", ""]
        assert after == database.read_sync(lambda connection: page(connection, VersionMessages()))
    assert messages.made == 4


def test_memory_is_bounded_and_answers_stay_right(tmp_path: Path) -> None:
    """With room for one message, pages are whole and the memory holds no more than it may."""
    with registry_rows(tmp_path) as database:
        database.write_sync(lambda connection: add_versions(connection, MODEL, 4))
        whole = database.read_sync(lambda connection: page(connection, VersionMessages()))
        messages = VersionMessages(kept_bytes=whole[0].ByteSize())
        for _ in range(2):
            assert database.read_sync(lambda connection: page(connection, messages)) == whole
            assert 0 < messages.kept <= whole[0].ByteSize()
    assert messages.made == 8 - 1  # the one that was kept was made once
