"""What the ends of an attempt's parts mean together, and which nodes a gang gets."""

from __future__ import annotations

import pytest

from services.scheduler.gangs import breaks_gang, deciding_part, leaves_gang
from services.scheduler.jobs import AttemptEnd, AttemptState, Failure
from services.scheduler.placement import choose
from services.scheduler.records import Capacity, Needs, Node

FOLLOWS = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="GANG_BROKEN", message="m"))
USER = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="LOSS_NOT_FINITE", message="m", is_user_fault=True))
DISK = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="DISK_FULL", message="m"))
LOST = AttemptEnd(state=AttemptState.LOST, failure=Failure(reason="WORKER_LOST", message="m"))
LEFT = AttemptEnd(state=AttemptState.INTERRUPTED)
CANCELLED = AttemptEnd(state=AttemptState.CANCELLED)
DONE = AttemptEnd(state=AttemptState.SUCCEEDED)


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([DONE, DONE], 0),
        ([DONE, LOST], 0),
        ([FOLLOWS, LOST], 1),
        ([FOLLOWS, USER, FOLLOWS], 1),
        ([LOST, USER], 1),
        ([DISK, LOST], 0),
        ([FOLLOWS, LEFT], 1),
        ([CANCELLED, LOST], 1),
        ([CANCELLED, FOLLOWS], 1),
        ([LOST, LOST], 0),
        ([LEFT, LEFT], 0),
        ([CANCELLED, DONE], 0),
    ],
)
def test_the_end_is_the_one_that_began_it(ends: list[AttemptEnd], rank: int) -> None:
    """What follows from another part's end is never shown as the cause, and rank 0 alone has a result."""
    assert deciding_part(ends) == rank


def test_others_are_stopped_by_how_one_ended() -> None:
    """A success asks nothing of the others, a stop that saved asks for the same, any other end breaks the gang."""
    assert [breaks_gang(end) for end in (DONE, LEFT, CANCELLED, LOST, FOLLOWS)] == [False, False, True, True, True]
    assert [leaves_gang(end) for end in (DONE, LEFT, CANCELLED, LOST, FOLLOWS)] == [False, True, False, False, False]


def node(name: str, slots: int = 1, state: str = "READY") -> Node:
    """Returns a node without accelerators."""
    return Node(
        node=name,
        address="",
        capacity=Capacity(device_bytes=(), cpu_millis=1000, memory_bytes=10**9, slots=slots),
        capacity_message=b"",
        labels={},
        generation="g",
        version="",
        state=state,
        lease_until_ms=1,
        unreachable_ms=None,
        manager_token="",
    )


def test_a_gang_gets_different_nodes_the_one_with_the_checkpoint_first() -> None:
    """Slots of one node are not two nodes; rank 0 goes where the newest checkpoint is."""
    nodes = [node("a", slots=2), node("b"), node("c")]
    place = choose(Needs(nodes=2), nodes, {}, checkpoint_node="c")
    assert place is not None
    assert place.nodes == ("c", "a")
    assert place.why == "nodes/c has 1 of 1 slots free, nodes/a has 2 of 2 slots free."
    assert choose(Needs(nodes=4), nodes, {}, None) is None


def test_a_gang_gets_nothing_while_one_node_is_missing() -> None:
    """A full, draining or missing node leaves the others free."""
    assert choose(Needs(nodes=2), [node("a"), node("b")], {"b": 1}, None) is None
    assert choose(Needs(nodes=2), [node("a"), node("b", state="DRAINING")], {}, None) is None
    assert choose(Needs(nodes=1), [node("a"), node("b")], {"b": 1}, None) is not None
