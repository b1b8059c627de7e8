"""The log of moves: what it answers is what a plain list of moves answers, whatever the history and the clock."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete

from services.grpckit.database import Database
from services.grpckit.errors import Reason, ServiceError
from services.registry.aliases import log, store
from services.registry.aliases.resources import Alias, AliasMove, MoveKind
from services.registry.tables import ALIAS_CHANGES, ALIAS_CLOCKS, ALIASES
from tests.support.registry_rows import add_versions, registry_rows
from tuneforge.names import AliasName, ModelName

MODELS = (ModelName("default", "one"), ModelName("default", "two"))
NAMES = tuple(model.alias(alias) for model in MODELS for alias in ("production", "staging"))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Gives a database with two models of four versions each."""
    folder: Path = tmp_path_factory.mktemp("aliases")
    with registry_rows(folder) as opened:
        for model in MODELS:
            opened.write_sync(lambda c, model=model: add_versions(c, model, 4))  # type: ignore[misc]
        yield opened


@dataclass
class Clock:
    """A wall clock that is put forward and back."""

    now_us: int = 1_000_000

    def __call__(self) -> int:
        """Returns the time."""
        return self.now_us


@dataclass
class Plain:
    """What an alias log should say, as a list."""

    moves: list[tuple[AliasName, int, int]] = field(default_factory=list)
    """Alias, version (0: deleted) and time, in order."""

    def at(self, name: AliasName, time_us: int) -> int:
        """Returns the version at a moment; 0: none."""
        versions = [version for alias, version, time in self.moves if alias == name and time <= time_us]
        return versions[-1] if versions else 0

    def now(self, name: AliasName) -> int:
        """Returns the version now."""
        return self.at(name, 2**62)


Action = tuple[str, int, int, int]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "delete", "rollback"]),
        st.integers(0, len(NAMES) - 1),
        st.integers(1, 4),
        st.sampled_from([-5_000_000, -1, 0, 0, 1, 7, 1_000_000]),
    ),
    max_size=25,
)


def empty(connection: Connection) -> None:
    """Takes every move away, so that the next example begins anew."""
    for table in (ALIAS_CHANGES, ALIASES, ALIAS_CLOCKS):
        connection.execute(delete(table))


def act(connection: Connection, action: Action, clock: Clock) -> Alias | None:
    """Makes one move; None when there is nothing to delete or to go back to."""
    what, index, version, _ = action
    name = NAMES[index]
    try:
        if what == "rollback":
            target = log.rollback_target(connection, name, 0)
            move = AliasMove(
                name=name,
                kind=MoveKind.ROLLBACK,
                version=target.to_version,
                restored_sequence=target.sequence,
                reason="",
                actor="a",
            )
        elif what == "delete":
            move = AliasMove(name=name, kind=MoveKind.DELETE, version=0, reason="", actor="a")
        else:
            move = AliasMove(name=name, version=version, reason="", actor="a")
        return store.move_alias(connection, move, clock)
    except ServiceError as error:
        if error.reason not in {Reason.NOT_FOUND, Reason.WRONG_STATE}:
            raise
        return None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_any_history_is_answered_like_a_list_of_moves(database: Database, actions: list[Action]) -> None:
    """Whatever moves, and however the clock is put back, `as_of` of any time is what the list of moves says."""
    database.write_sync(empty)
    plain, clock = Plain(), Clock()
    for action in actions:
        clock.now_us += action[3]
        before = plain.now(NAMES[action[1]])
        alias = database.write_sync(lambda c, action=action: act(c, action, clock))  # type: ignore[misc]
        if alias is not None and alias.version != before:
            assert action[0] != "set" or alias.version == action[2]
            plain.moves.append((alias.name, alias.version, alias.update_time_us))
    times = [time for _, _, time in plain.moves]
    assert times == sorted(set(times)), "times rise from move to move"

    def check(connection: Connection) -> None:
        for time_us in {0, *times, *(time - 1 for time in times), *(time + 1 for time in times)}:
            for name in NAMES:
                change = log.as_of(connection, name, time_us)
                assert (change.to_version if change else 0) == plain.at(name, time_us)
        told = log.changes_after(connection, "default", 0, 1000)
        assert [(each.name, each.to_version, each.time_us) for each in told] == plain.moves
        assert [each.position for each in told] == list(range(1, len(told) + 1))
        for position in {0, len(told) // 2, len(told)}:
            aliases, _ = log.aliases_at(connection, "default", position, ("", ""), 100)
            then = Plain(plain.moves[:position])
            assert {each.name: each.version for each in aliases} == {
                name: then.now(name) for name in NAMES if then.now(name)
            }

    database.read_sync(check)


def history(database: Database, *actions: str) -> list[int]:
    """Makes moves of one alias (`3`: to version 3, `d`: delete, `r`: roll back) and returns what it named then."""
    database.write_sync(empty)
    named = []
    for action in actions:
        what = {"d": "delete", "r": "rollback"}.get(action, "set")
        version = int(action) if action.isdigit() else 1
        database.write_sync(lambda c, step=(what, 0, version, 0): act(c, step, Clock()))  # type: ignore[misc]
        alias = database.read_sync(lambda c: store.find_alias(c, NAMES[0]))
        named.append(alias.version if alias else 0)
    return named


def test_rollbacks_go_on_backwards(database: Database) -> None:
    """Each rollback goes one version further back; after a new move it begins there; a deletion can be taken back."""
    assert history(database, "1", "2", "3", "r", "r") == [1, 2, 3, 2, 1]
    assert history(database, "1", "2", "r", "4", "r") == [1, 2, 1, 4, 1]
    assert history(database, "1", "2", "d", "r", "r") == [1, 2, 0, 2, 1]


def test_there_is_nothing_before_the_first_move(database: Database) -> None:
    """A rollback before the first move, or to a deletion, is WRONG_STATE; to a move that is not, INVALID_FIELD."""
    history(database, "1", "d", "2")
    for sequence, reason in ((0, Reason.WRONG_STATE), (2, Reason.WRONG_STATE), (9, Reason.INVALID_FIELD)):
        with pytest.raises(ServiceError) as refusal:
            database.read_sync(lambda c, n=sequence: log.rollback_target(c, NAMES[0], n))  # type: ignore[misc]
        assert refusal.value.reason == reason
    assert database.read_sync(lambda c: log.rollback_target(c, NAMES[0], 1)).to_version == 1
    history(database, "1")
    with pytest.raises(ServiceError, match="before its first move"):
        database.read_sync(lambda c: log.rollback_target(c, NAMES[0], 0))


def test_snapshots_come_in_parts(database: Database) -> None:
    """The parts of a snapshot have every alias once, and leave out what moved after it began."""

    def walk(connection: Connection) -> list[str]:
        after: tuple[str, str] | None = ("", "")
        found = []
        while after is not None:
            aliases, after = log.aliases_at(connection, "default", 3, after, 1)
            found += [f"{each.name.model} {each.name.alias} {each.version}" for each in aliases]
        return found

    database.write_sync(empty)
    for index, version in ((0, 1), (2, 2), (3, 3), (0, 4), (1, 1)):
        database.write_sync(lambda c, step=("set", index, version, 0): act(c, step, Clock()))  # type: ignore[misc]
    assert database.read_sync(walk) == ["one production 1", "two production 2", "two staging 3"]
