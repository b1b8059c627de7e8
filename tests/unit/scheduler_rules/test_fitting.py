"""A spec that the known nodes could never hold is refused, and the answer says by how much it misses."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.fitting import Memories, misfit, needs_of
from services.scheduler.placement import host_bytes_on, shortage
from services.scheduler.records import Capacity, Node
from tests.support.training_run import SPEC
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.spec import ComputeType, Resources, TrainingSpec

GB = 10**9
LONG = replace(SPEC, data=replace(SPEC.data, max_tokens=128))


def _unknown(_: TrainingSpec) -> Memories:
    return {}


def _node(name: str, memory_bytes: int = 10**9, device_bytes: tuple[int, ...] = ()) -> Node:
    return Node(
        node=name,
        address="",
        capacity=Capacity(device_bytes=device_bytes, cpu_millis=1000, memory_bytes=memory_bytes, slots=1),
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
    assert misfit(_spec(2), nodes, _unknown) is None
    problem = misfit(_spec(3), nodes, _unknown)
    assert problem is not None
    assert problem.message == (
        "it asks for 3 nodes at once, and 2 of the 2 known nodes could hold a part; set resources.nodes to 2, or start "
        "more trainers first"
    )
    assert problem.metadata == {"nodes_asked": "3", "nodes_able": "2"}


def test_nodes_that_are_too_small_do_not_count() -> None:
    """A node without the memory is named with what it lacks."""
    problem = misfit(_spec(2, 2 * 10**9), [_node("a", 4 * 10**9), _node("b")], _unknown)
    assert problem is not None
    assert "1 of the 2 known nodes could hold a part; nodes/b has 1.0 GB of host memory" in problem.message


def test_before_the_first_node_is_known_everything_may_wait() -> None:
    """Nodes come and go: with none at all nothing is known of what they will have."""
    assert misfit(_spec(64), [], _unknown) is None


def _memories(spec: TrainingSpec) -> Memories:
    """Six gigabytes on a host; four on either accelerator and three beside it, a half of all that with short rows."""
    divisor = 1 if spec.data.max_tokens > 64 else 2

    def memory(peak: int, host: int = 0) -> MemoryEstimate:
        nothing = dict.fromkeys(("weights_bytes", "adapter_bytes", "gradients_bytes", "optimizer_bytes"), 0)
        figures = {"highest_bytes": peak * GB // divisor, "host_bytes": host * GB // divisor}
        return MemoryEstimate(activations_bytes=0, **nothing, **figures)

    return {"A": memory(3, 2), "B": memory(4, 3), "cpu": memory(6)}


def test_each_kind_of_node_is_held_against_its_own_memory() -> None:
    """A host holds the run's whole peak; beside an accelerator it holds less, and that is looked at and taken too."""
    needs = needs_of(LONG, _memories(LONG))
    places = {
        "host": (_node("a", 6 * GB), "", 6 * GB),
        "small host": (_node("a", 5 * GB), "has 5.0 GB of memory on the host", 6 * GB),
        "device": (_node("a", 3 * GB, (4 * GB,)), "", 3 * GB),
        "small device": (_node("a", 3 * GB, (3 * GB,)), "has 3.0 GB of memory on a device", 3 * GB),
        "small host beside": (_node("a", 2 * GB, (4 * GB,)), "has 2.0 GB of memory on the host", 3 * GB),
    }
    for name, (node, words, taken) in places.items():
        lack = shortage(needs, node)
        assert (lack.what if lack else "", host_bytes_on(needs, node.capacity)) == (words, taken), name
    on_host = replace(needs, devices=0)
    assert host_bytes_on(on_host, places["device"][0].capacity) == 6 * GB  # it leaves the accelerator alone


def test_a_job_is_refused_only_when_it_fits_on_no_kind() -> None:
    """One node that holds it is enough; else the best node and the cheapest change are named."""
    spec = replace(LONG, compute=ComputeType.BF16)
    spec = replace(spec, optimization=replace(spec.optimization, rows_per_micro_batch=1))
    small, device = _node("a", 2 * GB), _node("b", 3 * GB, (2 * GB,))
    assert misfit(spec, [small, _node("c", 6 * GB)], _memories) is None
    problem = misfit(spec, [small, device], _memories)
    assert problem is not None
    assert problem.message == (
        "it needs 4.0 GB; the best node, nodes/b, has 2.0 GB of memory on a device: 2.0 GB too little; with "
        "`data.max_tokens` 64 it needs 2.0 GB"
    )
