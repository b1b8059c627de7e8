"""Whether any known node could ever hold a job, by how much it misses, and the cheapest change that would fit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.grpckit.errors import ServiceError
from services.scheduler.calibration import CPU
from services.scheduler.placement import Shortage, gigabytes, kind_of, peak_on, shortage
from services.scheduler.records import Needs, Node
from tuneforge.specs.cheaper import cheapest_fit
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.scheduling import DEFAULT, Scheduling
from tuneforge.specs.spec import TrainingSpec

Memories = Mapping[str, MemoryEstimate]
"""Peak memory by kind of device that could take a job; empty: the shapes of its base are not known."""


def needs_of(spec: TrainingSpec, memories: Memories, scheduling: Scheduling = DEFAULT) -> Needs:
    """Returns what an attempt of a spec asks of a node."""
    on_devices = [memory for kind, memory in memories.items() if kind != CPU]
    return Needs(
        nodes=spec.resources.nodes or 1,
        devices=spec.resources.devices_per_node,
        peak_bytes=memories[CPU].highest_bytes if CPU in memories else 0,
        device_peak_bytes=max((memory.highest_bytes for memory in on_devices), default=0),
        beside_bytes=max((memory.host_bytes for memory in on_devices), default=0),
        host_bytes=spec.resources.memory_bytes,
        cpu_millis=spec.resources.cpu_millis,
        labels=dict(spec.resources.node_labels),
        exclude_nodes=frozenset(name.removeprefix("nodes/") for name in scheduling.exclude_nodes),
        exclude_labels=dict(scheduling.exclude_labels),
        device_kinds=tuple(kind.strip().lower() for kind in scheduling.device_kinds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Why no known node could ever hold a job."""

    message: str
    """By how much it misses and what would fit."""
    metadata: dict[str, str]

    def error(self) -> ServiceError:
        """Returns the answer for `CreateJob`."""
        return ServiceError("DOES_NOT_FIT", self.message, metadata=self.metadata)


def misfit(
    spec: TrainingSpec,
    nodes: Sequence[Node],
    memories_of: Callable[[TrainingSpec], Memories],
    scheduling: Scheduling = DEFAULT,
) -> Misfit | None:
    """Returns why no known node could ever hold a spec, or None when one could, or when no node is known yet.

    Args:
        spec: With defaults.
        nodes: All known nodes, reachable or not.
        memories_of: Gives the memory of a spec on its base.
        scheduling: Where it may run.
    """
    needs = needs_of(spec, memories_of(spec), scheduling)
    lacking = [(node, lack) for node in nodes if (lack := shortage(needs, node)) is not None]
    able = len(nodes) - len(lacking)
    if not nodes or able >= needs.nodes:
        return None
    if able:
        return _too_few(needs.nodes, able, lacking)
    return _none_holds_it(spec, nodes, lacking, lambda each: needs_of(each, memories_of(each), scheduling))


def _too_few(wanted: int, able: int, lacking: Sequence[tuple[Node, Shortage]]) -> Misfit:
    others = "".join(f"; nodes/{node.node} {lack.what}" for node, lack in lacking[:3])
    return Misfit(
        message=f"it asks for {wanted} nodes at once, and {able} of the {able + len(lacking)} known nodes could hold a "
        f"part{others}; set resources.nodes to {able}, or start more trainers first",
        metadata={"nodes_asked": str(wanted), "nodes_able": str(able)},
    )


def _none_holds_it(
    spec: TrainingSpec,
    nodes: Sequence[Node],
    lacking: Sequence[tuple[Node, Shortage]],
    needs: Callable[[TrainingSpec], Needs],
) -> Misfit:
    by_memory = sorted((lack.missing_bytes, node.node, lack) for node, lack in lacking if lack.missing_bytes)
    if not by_memory:
        node, lack = lacking[0]
        others = f", nor do the {len(nodes) - 1} others" if len(nodes) > 1 else ""
        return Misfit(
            message=f"no known node could hold it: nodes/{node.node} {lack.what}{others}; change `resources` or "
            "`scheduling`",
            metadata={"node": f"nodes/{node.node}"},
        )
    missing, best, lack = by_memory[0]
    message = (
        f"it needs {gigabytes(lack.needed_bytes)}; the best node, nodes/{best}, {lack.what}: "
        f"{gigabytes(missing)} too little"
    )
    metadata = {"node": f"nodes/{best}", "missing_bytes": str(missing), "needed_bytes": str(lack.needed_bytes)}
    found = cheapest_fit(spec, needs, lambda _, less: any(shortage(less, node) is None for node in nodes))
    if found is None:
        return Misfit(message=f"{message}; use a smaller base or a larger node", metadata=metadata)
    change, less = found
    then = min(peak_on(less, node.capacity) for node in nodes if shortage(less, node) is None)
    words = f"{message}; with {change.words} it needs {gigabytes(then)}"
    return Misfit(message=words, metadata=metadata | {"change": change.words})


def doubts(spec: TrainingSpec, memories: Memories, scheduling: Scheduling, nodes: Sequence[Node]) -> list[str]:
    """Returns what is allowed and yet looks like a slip, as sentences.

    Args:
        spec: With defaults.
        memories: What it is predicted to need on each kind of device; empty: not known.
        scheduling: Where it may run.
        nodes: All known nodes, reachable or not; where none is, nothing is said of nodes.
    """
    found = []
    known, kinds = {node.node for node in nodes}, {kind for node in nodes for kind in node.capacity.device_models}
    strange = [name for name in scheduling.exclude_nodes if name.removeprefix("nodes/") not in known]
    if nodes and strange:
        found.append(f"No known node is {' or '.join(strange)}: excluding it changes nothing.")
    for key, value in scheduling.exclude_labels.items() if nodes else ():
        if not any(key in node.labels and value in ("", node.labels[key]) for node in nodes):
            found.append(f"No known node carries the label {key}{value and '='}{value}: excluding it changes nothing.")
    found += [
        f"No known node has devices of the kind {wanted!r}."
        for wanted in (scheduling.device_kinds if nodes else ())
        if not any(wanted.strip().lower() in kind.lower() for kind in kinds)
    ]
    asked = spec.resources.memory_bytes
    least = min((each.host_bytes or each.lowest_bytes for each in memories.values()), default=0)
    if 0 < asked < least:
        found.append(
            f"It asks for {asked:,} bytes of host memory (resources.memory), and is predicted to need {least:,}."
        )
    return found + _unlike(needs_of(spec, memories, scheduling), nodes)


def _unlike(needs: Needs, nodes: Sequence[Node]) -> list[str]:
    """Returns that enough nodes could hold a part of a gang and too few of them are alike; `explain` says it later."""
    kinds = Counter(kind_of(needs, node.capacity) for node in nodes if shortage(needs, node) is None)
    most = max(kinds.values(), default=0)
    if not most < needs.nodes <= kinds.total():
        return []
    return [
        f"It asks for {needs.nodes} nodes at once, and at most {most} of the {kinds.total()} known ones that could "
        "hold a part are alike; the others differ in devices, versions of libraries or processor, and would not "
        f"compute the same numbers. It waits until there are more of one kind; with resources.nodes {most} it need not."
    ]
