"""What the loop observed -> the queue that a plan looks at. Pure.

Work that a stop would lose is counted in steps: the part of the attempt's steps that no durable checkpoint has, of the
time since its first step. So it does not matter how far the clocks of nodes are apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.scheduler.jobs import HELD, LEAVING, LIVE_ATTEMPT, AttemptState, JobState
from services.scheduler.observation import Observation
from services.scheduler.placement import host_bytes_on, kind_of, shortage
from services.scheduler.planning.queue import Queue, Room, Running, Waiting
from services.scheduler.planning.work import unsaved_part
from services.scheduler.records import ActiveJob, Attempt, Needs, Node


def queue_of(seen: Observation) -> Queue:
    """Returns the moment as a plan looks at it."""
    rooms = {node.node: node for node in seen.nodes if node.takes_work(seen.now_ms) and node.node in seen.reported}
    places = _places_on(tuple(rooms.values()), seen.nodes)
    parts = parts_by_job(seen)
    away = frozenset(node.node for node in seen.nodes if node.is_away(seen.now_ms))
    running = [_running(seen, job, parts[job.number], away) for job in seen.jobs if job.number in parts]
    used = _used(seen, rooms)
    now_ms, queued = seen.now_ms, JobState.QUEUED  # a long queue is mostly this one loop
    waiting = [
        known[3]
        if (known := _kept.get(job.number)) is not None and known[0] is job and known[1] is places
        else _waiting(seen, job, places)
        for job in seen.jobs
        if job.state is queued and job.not_before_ms <= now_ms and job.start_after_ms <= now_ms
    ]
    return Queue(
        now_ms=seen.now_ms,
        waiting=tuple(waiting),
        running=tuple(running),
        rooms=tuple(_room(node, used[node.node]) for node in rooms.values()),
        projects=seen.projects,
        rules=seen.rules,
    )


def parts_by_job(seen: Observation) -> dict[int, list[Attempt]]:
    """Returns the parts of each job's current attempt that may still run, by rank."""
    tokens = {job.number: job.token for job in seen.jobs if job.state in HELD}
    found: dict[int, list[Attempt]] = {}
    for attempt in seen.attempts:
        if attempt.state in LIVE_ATTEMPT and tokens.get(attempt.job) == attempt.token:
            found.setdefault(attempt.job, []).append(attempt)
    for parts in found.values():
        parts.sort(key=lambda part: part.node_rank)
    return found


class _Places:
    """Which nodes could hold a job if they were idle; asked once for each demand."""

    def __init__(self, nodes: tuple[Node, ...], known: Iterable[Node]) -> None:
        self._nodes = nodes
        self._capacities = {node.node: node.capacity for node in known}
        self._known: dict[object, frozenset[str] | None] = {}

    def home(self, job: ActiveJob) -> str | None:
        """Returns the node whose kind a job goes on with: it made the state that the blob store has. None: none."""
        capacity = self._capacities.get(job.durable_node or "")
        return job.durable_node if capacity is not None and capacity.software else None

    def of(self, needs: Needs, home: str | None) -> frozenset[str] | None:
        """Returns the nodes, those that are like one if it is given, or None when they are all."""
        demand = (
            home,
            needs.devices, needs.peak_bytes, needs.device_peak_bytes, needs.beside_bytes, needs.host_bytes,
            needs.cpu_millis, needs.device_kinds,
            needs.exclude_nodes, tuple(needs.labels.items()), tuple(needs.exclude_labels.items()),
        )  # fmt: skip
        try:
            return self._known[demand]
        except KeyError:
            if len(self._known) >= _KEPT_MOST:
                self._known.clear()
            kind = None if home is None else kind_of(needs, self._capacities[home])
            able = frozenset(
                node.node
                for node in self._nodes
                if shortage(needs, node) is None and (kind is None or kind_of(needs, node.capacity) == kind)
            )
            found = self._known[demand] = None if len(able) == len(self._nodes) else able
            return found


_newest_places: list[tuple[object, _Places]] = []
"""The places of the newest round, with what they follow from: heartbeats change none of it."""


def _places_on(nodes: tuple[Node, ...], known: Iterable[Node]) -> _Places:
    """Returns the places on some nodes; the same object while nothing changes that a job's needs are held against.

    Args:
        nodes: Those that take work.
        known: All of them.
    """
    same = [(node.node, node.capacity, node.labels) for node in nodes], [(node.node, node.capacity) for node in known]
    if _newest_places and (newest := _newest_places[0])[0] == same:
        return newest[1]
    places = _Places(nodes, known)
    _newest_places[:] = [(same, places)]
    return places


_kept: dict[int, tuple[ActiveJob, _Places, frozenset[str] | None, Waiting]] = {}
"""What was made of waiting jobs, by number: of ten thousand a round finds nearly all as they were. A memo of a pure
function; an entry counts for the very same job and places."""
_KEPT_MOST = 100_000


def _waiting(seen: Observation, job: ActiveJob, places: _Places) -> Waiting:
    """Returns what is not kept as it is."""
    known = _kept.get(job.number)
    home = places.home(job)
    nodes = places.of(job.needs, home)
    is_same = known is not None and known[0] is job and known[2] == nodes and known[3].like == home
    made = known[3] if known is not None and is_same else replace(_new_waiting(seen, job, nodes), like=home)
    if job.deadline_ms is None:  # else it depends on the time
        if len(_kept) >= _KEPT_MOST:
            _kept.clear()
        _kept[job.number] = job, places, nodes, made
    return made


def _new_waiting(seen: Observation, job: ActiveJob, nodes: frozenset[str] | None) -> Waiting:
    needs, (urgent_ms, latest_ms) = job.needs, urgency(job, seen.now_ms)
    return Waiting(
        job=job.number,
        project=job.name.project,
        priority=job.priority,
        submit_ms=job.create_ms,
        queued_ms=job.queued_ms,
        attained_ms=job.spent.device_ms,
        parts=needs.nodes,
        slots=needs.slots,
        is_on_cpu=needs.devices == 0,
        nodes=nodes,
        prefers=job.checkpoint_node,
        cpu_millis=needs.cpu_millis,
        host_bytes=needs.host_bytes,
        peak_bytes=needs.peak_bytes,
        beside_bytes=_beside_bytes(needs),
        urgent_ms=urgent_ms,
        latest_start_ms=latest_ms,
    )


def _running(seen: Observation, job: ActiveJob, parts: list[Attempt], away: frozenset[str]) -> Running:
    needs, (urgent_ms, latest_ms) = job.needs, urgency(job, seen.now_ms)
    held = {part.node: needs.slots for part in parts}
    start_ms = min(part.create_ms for part in parts)
    return Running(
        job=job.number,
        project=job.name.project,
        priority=job.priority,
        submit_ms=job.create_ms,
        start_ms=start_ms,
        attained_ms=job.spent.device_ms + sum(held.values()) * (seen.now_ms - start_ms),
        held=held,
        loss_ms=loss_ms(seen, job, parts),
        restore_ms=restore_ms(seen, parts),
        cpu_millis=needs.cpu_millis,
        host_bytes=needs.host_bytes,
        peak_bytes=needs.peak_bytes,
        beside_bytes=_beside_bytes(needs),
        urgent_ms=urgent_ms,
        latest_start_ms=latest_ms,
        # Who does not run yet cannot save, and who cannot be reached cannot be asked.
        is_preemptible=job.is_preemptible and job.state is JobState.RUNNING and away.isdisjoint(held),
        is_leaving=job.state in LEAVING or job.state is JobState.CANCELLING,
    )


def _beside_bytes(needs: Needs) -> int:
    """Returns the predicted peak of the host's memory on nodes with accelerators, where it may use none of them."""
    return needs.peak_bytes if needs.devices == 0 else needs.beside_bytes


def loss_ms(seen: Observation, job: ActiveJob, parts: list[Attempt]) -> float:
    """Returns the device-milliseconds that are lost when a running job is stopped now and goes on later.

    Work since its last durable checkpoint, and the restore: as long as this attempt took to its first step.
    """
    first = parts[0]
    unsaved_ms = 0.0
    if first.first_step_ms is not None:
        unsaved = unsaved_part(first.resumed_step, first.step, job.durable_step)
        unsaved_ms = unsaved * (seen.now_ms - first.first_step_ms)
    return job.needs.slots * len(parts) * (unsaved_ms + restore_ms(seen, parts))


def restore_ms(seen: Observation, parts: list[Attempt]) -> float:
    """Returns how long a restore takes: as long as this attempt took to its first step; before, as long as is usual."""
    first_step_ms = parts[0].first_step_ms
    if first_step_ms is None:
        return float(seen.rules.restore_ms)
    return float(first_step_ms - min(part.create_ms for part in parts))


def rest_ms(job: ActiveJob) -> int:
    """Returns how long the rest of a run is predicted to take; 0: not known."""
    done = job.step / job.total_steps if job.total_steps else 0.0
    return round(job.predicted_ms * (1.0 - min(1.0, done)))


def urgency(job: ActiveJob, now_ms: int) -> tuple[int | None, int | None]:
    """Returns when a job begins to be urgent and when it must start at the latest, by its deadline; None: never."""
    if job.deadline_ms is None or job.deadline_ms <= now_ms:
        return None, None
    if rest := rest_ms(job):
        return job.deadline_ms - 2 * rest, job.deadline_ms - rest
    return (job.create_ms + job.deadline_ms) // 2, job.deadline_ms


def _used(seen: Observation, rooms: Mapping[str, Node]) -> dict[str, list[int]]:
    """Returns slots, CPU share and host memory taken on each node.

    By attempts placed here, and by given-up ones that the node says still run; of those a slot is counted. An attempt
    that ended by its node's own word has freed its slot, even if the last heartbeat is older than that word.
    """
    jobs = {job.number: job for job in seen.jobs}
    used = {node: [0, 0, 0] for node in rooms}
    for attempt in seen.attempts:
        node = rooms.get(attempt.node)
        if node is None:
            continue
        taken, job = used[attempt.node], jobs.get(attempt.job)
        if attempt.state in LIVE_ATTEMPT and job is not None:
            needs = job.needs
            taken[0] += needs.slots
            taken[1] += needs.cpu_millis or needs.slots * _slot_cpu(node)
            taken[2] += host_bytes_on(needs, node.capacity)
        elif attempt.state is AttemptState.LOST and seen.reported[attempt.node].get(str(attempt.name), False):
            taken[0] += 1
            taken[1] += _slot_cpu(node)
    return used


def _room(node: Node, used: list[int]) -> Room:
    capacity = node.capacity
    return Room(
        node=node.node,
        slots=capacity.slots,
        free=capacity.slots - used[0],
        free_cpu_millis=capacity.cpu_millis - used[1],
        slot_cpu_millis=_slot_cpu(node),
        free_bytes=capacity.memory_bytes - used[2],
        peaks_on_host=not capacity.device_bytes,
        software=capacity.software,
        device=capacity.device_names,
    )


def _slot_cpu(node: Node) -> int:
    """Returns the CPU share of one slot: what an attempt that asks for none is given."""
    return node.capacity.cpu_millis // node.capacity.slots
