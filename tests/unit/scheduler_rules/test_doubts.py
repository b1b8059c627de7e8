"""What looks like a slip when a job is made, and what is said of a result that is taken from another run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.scheduler.calibration import Interval, Kind
from services.scheduler.estimating import checkpoint_warnings
from services.scheduler.fitting import doubts
from services.scheduler.lifecycle.reused import note_of
from services.scheduler.predictions import Prediction
from tests.unit.scheduler_rules.test_fitting import _node as node
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.scheduling import Scheduling
from tuneforge.specs.spec import Checkpointing, FullMethod, LoraMethod, Method, Resources, TrainingSpec

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


@pytest.mark.parametrize(
    ("asked", "devices", "said"),
    [(1, None, ""), (2, None, ""), (3, None, "at most 2 of the 4 known ones"), (5, None, ""), (3, 0, "")],
)
def test_nodes_that_are_not_alike_are_said(asked: int, devices: int | None, said: str) -> None:
    """Of a gang, where enough nodes could hold a part; on the CPU other accelerators beside it do not count."""
    kinds = [("torch 2.11", "H200"), ("torch 2.11", "H200"), ("torch 2.11", "H100"), ("torch 2.13", "H100")]
    nodes = [
        replace(one, capacity=replace(one.capacity, software=software, device_models=(device,)))
        for number, (software, device) in enumerate(kinds)
        for one in [node(f"n{number}", device_bytes=(10**10,))]
    ]
    spec = TrainingSpec(resources=Resources(nodes=asked, devices_per_node=devices))
    found = doubts(spec, {}, Scheduling(), nodes)
    assert len(found) == bool(said)
    assert said in "".join(found)


def predicted(*, step_s: float, **sizes: int) -> Prediction:
    """Returns what a run of a thousand steps would take."""
    moment = Interval(expected=step_s, lowest=step_s, highest=step_s)
    memory = replace(MEMORY, **{f"{name}_bytes": size for name, size in sizes.items()})
    return Prediction(
        kind=Kind(family="", method="full", compute="auto", device="NVIDIA H200"), memory=memory, arithmetic_bytes=0,
        steps=1000, tokens_per_step=1.0, flops_per_token=1.0, step_seconds=moment, total_seconds=moment,
        device_seconds=moment, joules=None, cost=None, currency="", rate_runs=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("every", "method", "enough"),
    [
        (1, FullMethod(), "70 or more"),  # 35 GB, 70 s of writing beside steps of 4 s
        (69, FullMethod(), "70 or more"),
        (70, FullMethod(), ""),
        (0, FullMethod(), ""),
        (1000, FullMethod(), ""),
        (1, LoraMethod(), ""),
    ],
)
def test_checkpoints_that_take_a_large_part_of_the_time_are_said(every: int, method: Method, enough: str) -> None:
    """With the number of steps that would do; small ones, rare ones and none are fine."""
    spec = TrainingSpec(method=method, checkpointing=Checkpointing(every_steps=every))
    said = checkpoint_warnings(spec, predicted(step_s=4.0, weights=15 * 10**9, optimizer=20 * 10**9 * (not spec.lora)))
    assert [each.endswith(f"give checkpointing.every_steps {enough}.") for each in said] == [True] * bool(enough)
    assert all(each.startswith("CHECKPOINT_IO_HIGH: a checkpoint has about 35.0 GB") for each in said)


def test_a_reused_result_says_how_equal_it_is() -> None:
    """The same environment, another one with what differs, and one that nobody knows."""
    old = {"device": "cpu", "torch": "2.11.0", "os": "Linux 5"}
    assert "same bits" in note_of(old, old | {"os": "Linux 6"})
    assert "other environment (torch 2.11.0, now 2.13.0)" in note_of(old, old | {"torch": "2.13.0"})
    assert "not known" in note_of({}, old)
