"""What a plan looks at: jobs that wait, jobs that hold devices, nodes, projects and rules, at one moment.

Times are milliseconds by one clock. Work is device-milliseconds: one device for one millisecond. On a node without
accelerators a slot stands for a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How jobs are ordered and when running ones give way."""

    level_ends_ms: tuple[int, ...] = (HOUR_MS, 10 * HOUR_MS)
    """Work at which a job falls to the next level, ascending. Two levels and the rest: most jobs of the public traces
    end within the first, and a job that has run long can wait longest."""
    quantum_ms: int = 600_000
    """Shortest time that a job runs before it may be stopped for another one of its class; a higher class waits for
    nobody."""
    quantum_losses: float = 10.0
    """The same in multiples of what stopping it costs when it saves first: a job that is slow to start again is left
    alone longer. What is not copied yet does not count here, or who copies nothing would never give way."""
    stickiness: float = 0.8
    """What the work of a running job is multiplied by when its level is found: a small lead is not worth a stop."""
    reserve_after_ms: int = 600_000
    """Wait after which the first job that does not fit keeps others off the nodes that it needs."""
    promote_after_ms: int = 6 * HOUR_MS
    """Wait after which a job counts as one that has not run yet, so that none starves below an endless stream."""
    share_slack: float = 1.1
    """How far above its share a project may be before the others' jobs go first."""
    restore_ms: int = 60_000
    """What a restore is taken to cost where it was not measured: a job before its first step."""
    preempts: bool = True
    """Whether running jobs are stopped at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Whose jobs these are."""

    weight: float = 1.0
    """Its share of the devices, in proportion to the others', > 0."""
    usage_ms: float = 0.0
    """Work that its jobs were given, older work counting less (see `shares.py`)."""
    max_devices: int | None = None
    """Devices that it may hold at once; None: all."""
    max_jobs: int | None = None
    """Jobs that it may run at once; None: any number."""
    guaranteed_devices: int = 0
    """Devices that it keeps when others want them: none of its jobs is stopped for another project's below this."""
    held: str = ""
    """Why nothing of it starts now, as a sentence (a paused queue, spent device-hours or budget); empty: it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that could start now."""

    job: int
    project: str
    priority: int = 0
    """Class; a higher one always goes first."""
    submit_ms: int
    """When it was created."""
    queued_ms: int
    """Since when it waits: since its creation, or since it was stopped last."""
    attained_ms: float = 0.0
    """Work that it was given so far."""
    parts: int = 1
    """Nodes that it needs at once."""
    slots: int = 1
    """Slots on each of them."""
    is_on_cpu: bool = False
    """Whether it leaves accelerators alone, so that its parts may be beside different ones."""
    nodes: frozenset[str] | None = None
    """Nodes that could hold a part; None: any that has the slots."""
    prefers: str | None = None
    """Node with its newest checkpoint."""
    like: str | None = None
    """Node that `nodes` are like, for a state in the blob store was made there and goes on where the same numbers are
    computed; None: any kind will do."""
    cpu_millis: int = 0
    """CPU share on each of them in thousandths of a core; 0: that of its slots."""
    host_bytes: int = 0
    """Host memory on each of them."""
    peak_bytes: int = 0
    """Predicted peak of the host's memory on nodes without accelerators."""
    beside_bytes: int = 0
    """The same on nodes with accelerators."""
    urgent_ms: int | None = None
    """When it begins to go before others of its class and project, because of its deadline; None: never."""
    latest_start_ms: int | None = None
    """When it must start at the latest to meet its deadline, as far as its length is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that holds devices."""

    job: int
    project: str
    priority: int = 0
    submit_ms: int
    start_ms: int
    """When its attempt began."""
    attained_ms: float = 0.0
    """Work that it was given so far, this attempt's included."""
    held: Mapping[str, int]
    """Slots that it holds, by node."""
    loss_ms: float = 0.0
    """Work that is lost when it is stopped now: since its last durable checkpoint, and what a restore costs."""
    restore_ms: float | None = None
    """What it costs at least, on one of its devices: that of a stop for which it saves first; None: all of the loss."""
    cpu_millis: int = 0
    """CPU share that it holds on each node in thousandths of a core; 0: that of its slots."""
    host_bytes: int = 0
    """Host memory that it holds on each node."""
    peak_bytes: int = 0
    """As of a waiting one."""
    beside_bytes: int = 0
    urgent_ms: int | None = None
    """As of a waiting one."""
    latest_start_ms: int | None = None
    is_preemptible: bool = True
    is_leaving: bool = False
    """It was asked to stop; its devices will be free soon."""

    @property
    def devices(self) -> int:
        """Slots that it holds in all."""
        return sum(self.held.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A node that takes work."""

    node: str
    slots: int
    free: int
    """Slots that nothing holds."""
    free_cpu_millis: int | None = None
    """CPU share that nothing holds, in thousandths of a core; None: it is not counted."""
    slot_cpu_millis: int = 0
    """CPU share of one slot, for attempts that ask for none."""
    free_bytes: int | None = None
    """Host memory that nothing holds; None: it is not counted."""
    peaks_on_host: bool = False
    """Whether it has no accelerators."""
    software: str = ""
    """What attempts compute with on it; nodes that differ in it do not train one job together."""
    device: str = ""
    """What its accelerators are; the same holds for it, where they are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One moment."""

    now_ms: int
    waiting: tuple[Waiting, ...] = ()
    running: tuple[Running, ...] = ()
    rooms: tuple[Room, ...] = ()
    projects: Mapping[str, Project] = field(default_factory=dict)
    """By id; one that is missing has the defaults."""
    rules: Rules = field(default_factory=Rules)

    def project(self, name: str) -> Project:
        """Returns a project, with the defaults when nothing is known of it."""
        return self.projects.get(name, _DEFAULT)


_DEFAULT = Project()
