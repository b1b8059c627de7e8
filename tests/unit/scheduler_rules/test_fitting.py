"""A spec that the known nodes could never hold is refused, and the answer says by how much it misses."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.fitting import misfit
from services.scheduler.records import Capacity, Node
from tests.support.training_run import SPEC
from tuneforge.specs.spec import Resources, TrainingSpec


def _node(name: str, memory_bytes: int = 10**9) -> Node:
    return Node(
        node=name,
        address="",
        capacity=Capacity(device_bytes=(), cpu_millis=1000, memory_bytes=memory_bytes, slots=1),
        capacity_message=b"",
        labels={},
        generation="g",
        version="",
        state="READY",
        lease_until_ms=1,
        unreachable_ms=None,
        manager_token="t",
    )


def _spec(nodes: int, memory_bytes: int = 0) -> TrainingSpec:
    return replace(SPEC, resources=Resources(nodes=nodes, memory_bytes=memory_bytes))


def test_more_nodes_than_there_are_is_refused() -> None:
    """The answer counts the nodes that could hold a part and says what would fit; as many as there are is fine."""
    nodes = [_node("a"), _node("b")]
    assert misfit(_spec(2), nodes, None) is None
    problem = misfit(_spec(3), nodes, None)
    assert problem is not None
    assert problem.message == (
        "it asks for 3 nodes at once, and 2 of the 2 known nodes could hold a part; set resources.nodes to 2, or start "
        "more trainers first"
    )
    assert problem.metadata == {"nodes_asked": "3", "nodes_able": "2"}


def test_nodes_that_are_too_small_do_not_count() -> None:
    """A node without the memory is named with what it lacks."""
    problem = misfit(_spec(2, 2 * 10**9), [_node("a", 4 * 10**9), _node("b")], None)
    assert problem is not None
    assert "1 of the 2 known nodes could hold a part; nodes/b has 1.0 GB of host memory" in problem.message


def test_before_the_first_node_is_known_everything_may_wait() -> None:
    """Nodes come and go: with none at all nothing is known of what they will have."""
    assert misfit(_spec(64), [], None) is None
