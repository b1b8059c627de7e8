"""What looks like a slip when a job is made, and what is said of a result that is taken from another run."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.fitting import doubts
from services.scheduler.lifecycle.reused import note_of
from tests.unit.scheduler_rules.test_fitting import _node as node
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.scheduling import Scheduling
from tuneforge.specs.spec import Resources, TrainingSpec

MEMORY = MemoryEstimate(
    weights_bytes=1, adapter_bytes=1, gradients_bytes=1, optimizer_bytes=1, activations_bytes=1, lowest_bytes=10**9
)


def test_names_that_no_node_has_are_said() -> None:
    """Each of them, while what is right is not; and nothing before a node is known."""
    where = Scheduling(
        exclude_nodes=("nodes/n1", "nodes/typo"), exclude_labels={"zone": "b", "disk": ""}, device_kinds=("h900",)
    )
    nodes = [replace(node("n1"), labels={"zone": "a"})]
    said = doubts(TrainingSpec(), {}, where, nodes)
    assert len(said) == 4
    assert "nodes/typo:" in said[0]
    assert "nodes/n1" not in said[0]
    assert "zone=b" in said[1]
    assert "label disk:" in said[2]
    assert "'h900'" in said[3]
    assert not doubts(TrainingSpec(), {}, where, [])
    assert not doubts(TrainingSpec(), {}, Scheduling(exclude_nodes=("nodes/n1",), exclude_labels={"zone": ""}), nodes)


def test_a_byte_of_memory_is_said() -> None:
    """With what is predicted; what is enough, and what was not asked, are not."""
    for asked, count in ((1, 1), (10**9, 0), (0, 0)):
        spec = TrainingSpec(resources=Resources(memory_bytes=asked))
        assert len(doubts(spec, {"": MEMORY}, Scheduling(), [])) == count


def test_a_reused_result_says_how_equal_it_is() -> None:
    """The same environment, another one with what differs, and one that nobody knows."""
    old = {"device": "cpu", "torch": "2.11.0", "os": "Linux 5"}
    assert "same bits" in note_of(old, old | {"os": "Linux 6"})
    assert "other environment (torch 2.11.0, now 2.13.0)" in note_of(old, old | {"torch": "2.13.0"})
    assert "not known" in note_of({}, old)
