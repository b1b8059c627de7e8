"""The graph answers as a plain model of the same history does; revocation misses no alias."""

from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.grpckit.context import ALL_PROJECTS, Principal
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import Page
from services.registry.lineage import queries, revocations
from services.registry.lineage import store as lineage_store
from services.registry.lineage.graph import Direction
from services.registry.lineage.queries import Question
from services.registry.lineage.revocations import Revocation
from services.registry.lineage.sight import sight_of
from services.registry.lineage.store import add_edges
from services.registry.lineage.things import LEARNED, Role
from tests.unit.registry.lineage.graphs import History, P, Stored, empty_database, fill_anew, histories

ALL = sight_of(Principal(name="t", roles=frozenset(), projects=frozenset({ALL_PROJECTS})))
LEARNING = frozenset(role.value for role in LEARNED)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Gives one database to all tests."""
    stored = empty_database(tmp_path_factory.mktemp("graph"))
    yield stored
    stored.database.close()


@pytest.fixture
def empty(shared: Stored) -> Stored:
    """Returns the database without anything in it."""
    shared.do(lambda c: fill_anew(c, History()))
    return shared


def walk(stored: Stored, question: Question, size: int) -> tuple[list[tuple[str, int]], list[tuple[str, str, str]]]:
    """Returns (name, distance) of all nodes and all edges, read by pages of a size."""
    nodes: list[tuple[str, int]] = []
    edges: list[tuple[str, str, str]] = []
    while True:
        page = Page(scope="", size=size, after=str(len(nodes)))
        found = stored.do(partial(queries.ask, question=question, page=page, sight=ALL))
        nodes += [(node.thing.name, node.depth) for node in found.nodes]
        edges += found.edges
        if not found.has_more:
            return nodes, edges


@settings(max_examples=25, deadline=None)
@given(history=histories(), size=st.integers(1, 5), data=st.data())
def test_walks_and_paths_are_those_of_the_model(
    shared: Stored, history: History, size: int, data: st.DataObject
) -> None:
    """Both ways, by pages of any size: each node once with its distance, each edge once; paths are shortest."""
    shared.do(lambda c: fill_anew(c, history))
    start, other = (data.draw(st.sampled_from(sorted(history.edges))) for _ in range(2))
    for up, direction in ((True, Direction.ANCESTORS), (False, Direction.DESCENDANTS)):
        expected = history.reached(start, up=up)
        nodes, edges = walk(shared, Question(name=start, direction=direction), size)
        assert dict(nodes) == expected
        assert len(nodes) == len(expected)
        assert [depth for _, depth in nodes] == sorted(depth for _, depth in nodes)
        inside = {(c, p, r) for c in expected for p, r in history.edges[c] if p in expected}
        assert sorted(edges) == sorted(inside)
    found = shared.do(lambda c: queries.path(c, start, other, ALL))
    distance = {**history.reached(start, up=False), **history.reached(start, up=True)}.get(other)
    assert len(found.nodes) == (0 if distance is None else distance + 1)


@settings(max_examples=25, deadline=None)
@given(history=histories(), data=st.data())
def test_revocation_misses_no_alias_and_taints_what_learned(
    shared: Stored, history: History, data: st.DataObject
) -> None:
    """Exactly the aliases on versions that learned from the data are listed; what is suggested never did."""
    shared.do(lambda c: fill_anew(c, history))
    versions = [name for name in history.edges if "/datasets/" in name]
    name = data.draw(st.sampled_from(sorted({*versions, *(v.partition("/versions/")[0] for v in versions)})))
    reached = history.reached(name, up=False, roles=LEARNING)
    must_move = {alias: version for alias, version in history.aliases.items() if version in reached}
    with pytest.MonkeyPatch.context() as patch:  # few are left to move to, or many
        patch.setattr(queries, "_FEW_LEFT", data.draw(st.sampled_from((0, 1000))))
        listed = shared.do(lambda c: queries.affected_aliases(c, name, ALL))
    assert {each.name: each.version for each in listed} == must_move
    for each in listed:
        fit = [v for v in history.versions(each.name.partition("/aliases/")[0]) if v not in reached]
        assert each.suggestion == (fit[-1] if fit else "")
    change = Revocation(name=name, is_revoked=True, actor="ana", reason="license", time_us=10**12)
    shared.do(lambda c: revocations.add(c, change))
    every = sorted(history.edges)
    assert set(shared.do(lambda c: revocations.taints(c, every))) == set(reached)
    shared.do(
        lambda c: revocations.add(
            c, Revocation(name=name, is_revoked=False, actor="ana", reason="renewed", time_us=10**12 + 1)
        )
    )
    assert shared.do(lambda c: revocations.taints(c, every)) == {}


def test_a_cycle_is_refused(empty: Stored) -> None:
    """Nothing can be made from itself, nor from what was made from it."""
    one, two = f"{P}/promotions/one", f"{P}/promotions/two"
    empty.do(lambda c: add_edges(c, two, [(one, Role.PARENT)]))
    for child, parent in ((one, two), (one, one)):
        with pytest.raises(ServiceError) as caught:
            empty.do(partial(add_edges, child=child, parents=[(parent, Role.PARENT)]))
        assert caught.value.reason is Reason.CYCLE


def test_a_chain_of_a_thousand_is_taken_and_an_endless_one_refused(
    empty: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long history of retraining works, up to a limit that is said."""

    def grow(connection: object, start: int, count: int) -> None:
        for number in range(start, start + count):
            parents = [(f"{P}/models/m/versions/{number - 1}", Role.BASE)] if number > 1 else []
            add_edges(connection, f"{P}/models/m/versions/{number}", parents)  # type: ignore[arg-type]

    empty.do(lambda c: grow(c, 1, 1000))
    question = Question(name=f"{P}/models/m/versions/1000", direction=Direction.ANCESTORS)
    assert len(walk(empty, question, 1000)[0]) == 1000
    monkeypatch.setattr(lineage_store, "MOST_BASES", 1010)
    with pytest.raises(ServiceError) as caught:
        empty.do(lambda c: grow(c, 1001, 100))
    assert caught.value.reason is Reason.LINEAGE_DEPTH
    assert "at most 1010" in caught.value.message


def test_other_projects_are_left_out_for_who_may_not_see_them(empty: Stored) -> None:
    """What lies in another project is neither shown nor walked through; its owner sees it."""
    data, other, mine = f"{P}/datasets/d/versions/1", "projects/q/models/m/versions/1", f"{P}/models/m/versions/1"
    empty.do(lambda c: add_edges(c, other, [(data, Role.DATASET)]))
    empty.do(lambda c: add_edges(c, mine, [(other, Role.BASE)]))
    question = Question(name=data, direction=Direction.DESCENDANTS)
    page = Page(scope="", size=10, after=None)
    stranger = sight_of(Principal(name="s", roles=frozenset(), projects=frozenset({"p"})))
    assert [n.thing.name for n in empty.do(lambda c: queries.ask(c, question, page, stranger)).nodes] == [data]
    assert [n.thing.name for n in empty.do(lambda c: queries.ask(c, question, page, ALL)).nodes] == [data, other, mine]
