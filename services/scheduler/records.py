"""What the scheduler remembers, as frozen dataclasses: one a resource. Times are milliseconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.scheduler.jobs import AttemptState, JobState
from services.scheduler.lifecycle.reused import Reused
from services.scheduler.node_records import Capacity as Capacity
from services.scheduler.node_records import Drain as Drain
from services.scheduler.node_records import Node as Node
from services.scheduler.queues.budgets import NOTHING_SPENT, Budget, Spent
from services.scheduler.watching.records import Changes, Compaction
from tuneforge.names import AttemptName, JobName
from tuneforge.specs.scheduling import DEFAULT, Scheduling


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A version and the digest that its bytes must have."""

    version: str
    """Resource name of the version."""
    digest: str
    """Digest of its manifest, 64 hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one attempt of a job asks of each of its nodes."""

    nodes: int = 1
    """Nodes that train together; all of them or none."""
    devices: int | None = None
    """Accelerators; None: one where the node has some."""
    peak_bytes: int = 0
    """Predicted peak of the host's memory where it runs without an accelerator; 0: not known."""
    device_peak_bytes: int = 0
    """Predicted peak of an accelerator's memory, on the kind that needs most; 0: not known."""
    beside_bytes: int = 0
    """Predicted peak of the host's memory beside an accelerator; 0: not known."""
    host_bytes: int = 0
    """Host memory asked for; 0: no request."""
    cpu_millis: int = 0
    """CPU share asked for in thousandths of a core; 0: the node's default."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the node must carry."""
    exclude_nodes: frozenset[str] = frozenset()
    """Nodes that must not run it."""
    exclude_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the node must not carry; an empty value: with any value."""
    device_kinds: tuple[str, ...] = ()
    """Kinds of accelerators, or parts of their names, in small letters; empty: any."""

    @property
    def slots(self) -> int:
        """Slots that it takes on each node: one a device, one on the CPU."""
        return max(1, self.devices or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What a spec's names stand for, by digest; set once they are all known."""

    base: Ref
    """The base."""
    inputs: bytes
    """Serialised `StartAttemptRequest` that holds the layers of the base and the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A checkpoint in the blob store that a job begins from."""

    name: str
    """`projects/{project}/jobs/{job}/checkpoints/{step}`."""
    manifest: bytes
    """Serialised `Manifest`."""
    best_step: int = 0
    """Step of the lowest validation loss that its job had computed by then; 0: not known. Where a job is stored it is
    that job's own, until it finds a lower one."""
    best_name: str = ""
    """Name of the checkpoint of that step; found when an attempt is started, empty: none is needed."""
    best: bytes | None = None
    """Serialised `Manifest` of it; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that was admitted and is not stored yet."""

    name: JobName
    creator: str
    labels: Mapping[str, str]
    spec: bytes
    """Serialised `TrainingSpec`, defaults filled in and names pinned."""
    train: Ref
    validation: Ref | None
    pinned: Pinned | None
    """None: it waits for the output of `depends_on`."""
    depends_on: JobName | None
    architecture_version: str | None
    output_model: str
    estimate: bytes | None
    """Serialised `MemoryEstimate`."""
    needs: Needs
    lost_after_ms: int
    keep_checkpoints: int
    origin: Origin | None = None
    """Where its run begins; None: at the beginning."""
    verifies: bytes | None = None
    """Serialised `ResumeVerification`; None: it is a run that publishes."""
    resource_estimate: bytes | None = None
    """Serialised `ResourceEstimate`; None while the shapes of its base are not known."""
    budget: Budget | None = None
    """What it may spend; None: no limit."""
    retry: bytes | None = None
    """Serialised `RetryPolicy`; None: the scheduler's."""
    ttl_ms: int | None = None
    """It is removed so long after its end; None: never."""
    rerun_of: str | None = None
    """Job whose pinned spec it has."""
    training_digest: str | None = None
    """Digest of all that its result depends on; None: not known yet."""
    scheduling: Scheduling = DEFAULT
    waits_for: Mapping[int, str] = field(default_factory=dict)
    """Other jobs that must have succeeded before it starts, and have not ended: numbers and names."""
    warnings: tuple[str, ...] = ()
    """What is allowed and yet looks like a slip, as sentences."""
    reuses: Reused | None = None
    """Whose version is its result; None: it trains."""
    trial: str | None = None
    """Trial of a sweep that it is; None: none."""
    rows_at_once: int = 0
    """Most rows that its attempts compute at once, as the run did that it does again; 0: as the spec resolves."""

    @property
    def versions(self) -> list[str]:
        """Names of the versions that it reads and that are there; what lies below an adapter is held by the adapter."""
        refs = (self.pinned.base if self.pinned else None, self.train, self.validation)
        return [ref.version for ref in refs if ref is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the devices of a job were used for, in device-milliseconds; attempts that have ended count."""

    attained_ms: int = 0
    """Held in all."""
    lost_preempted_ms: int = 0
    """Lost because it gave way."""
    lost_faults_ms: int = 0
    """Lost to infrastructure."""
    saved_ms: int = 0
    """Work of attempts that did not end well which a checkpoint has kept."""
    preemptions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is stored."""

    number: int
    uid: int
    name: JobName
    state: JobState
    from_state: str
    reason: str
    message: str
    creator: str
    labels: Mapping[str, str]
    spec: bytes
    inputs: bytes | None
    estimate: bytes | None
    base: Ref | None
    train: Ref
    validation: Ref | None
    architecture_version: str | None
    output_model: str
    depends_on: int | None
    needs: Needs
    attempt: int
    token: int
    faults: int
    not_before_ms: int
    failure: bytes | None
    resolved: bytes | None
    published: Ref | None
    step: int
    total_steps: int
    create_ms: int
    start_ms: int | None
    end_ms: int | None
    latest_seq: int
    record_head: bytes
    """Head of the hash chain over all its events."""
    best_step: int = 0
    """Step of the lowest validation loss; 0: none was computed."""
    origin: Origin | None = None
    """Where its run begins; None: at the beginning."""
    verifies: bytes | None = None
    """Serialised `ResumeVerification`; None: it is a run that publishes."""
    resource_estimate: bytes | None = None
    """Serialised `ResourceEstimate`; None: not known, or a job of an earlier release."""
    spent: Spent = NOTHING_SPENT
    """What its ended attempts were given."""
    budget: Budget | None = None
    """What it may spend; None: no limit."""
    retry: bytes | None = None
    """Serialised `RetryPolicy`; None: the scheduler's."""
    user_faults: int = 0
    """Faults of its own so far; `faults` are those of the infrastructure."""
    handled: int = 0
    """Odd: it is being taken up; half of it: deaths of the scheduler over that."""
    fault_signature: str | None = None
    """Reason and step of the newest fault of its own."""
    rows_at_once: int = 0
    """Most rows that its next attempt computes at once, since memory ran out; 0: as many as the spec resolves to."""
    rerun_of: str | None = None
    """Job whose pinned spec it has."""
    training_digest: str | None = None
    """Digest of all that its result depends on; None: not known yet."""
    reused_from: str | None = None
    """Job whose version is its result; None: it trained."""
    ttl_ms: int | None = None
    """It is removed so long after its end; None: never."""
    expire_ms: int | None = None
    """When it is removed; None: not known yet, or never."""
    priority: int = 0
    """Its class: a higher one goes first."""
    trial: str | None = None
    """Trial of a sweep that it is; None: none."""
    is_unreachable: bool = False
    """Whether the node of its attempt does not answer."""
    is_stalled: bool = False
    """Whether its attempt makes no progress."""
    is_late: bool = False
    """Whether it will miss its deadline, or has."""
    scheduling: bytes | None = None
    """Serialised `Scheduling`; None: a job of an earlier release."""
    queued_ms: int = 0
    """Since when it waits, or began to wait last."""
    work: Work = field(default_factory=Work)
    """What its devices were used for."""
    changes: Changes = field(default_factory=Changes)
    compaction: Compaction = field(default_factory=Compaction)
    is_removed: bool = False
    """Whether nothing but its name is there any more, or soon will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveJob:
    """What decisions need to know of a job that has not ended."""

    number: int
    name: JobName
    state: JobState
    token: int
    depends_on: int | None
    not_before_ms: int
    lost_after_ms: int
    needs: Needs
    checkpoint_node: str | None
    """Node that has its newest checkpoint."""
    create_ms: int
    spent: Spent = NOTHING_SPENT
    """What its ended attempts were given."""
    budget: Budget | None = None
    """What it may spend; None: no limit."""
    priority: int = 0
    """Class; a higher one goes first."""
    is_preemptible: bool = True
    start_after_ms: int = 0
    """It does not start before."""
    waits_for: tuple[int, ...] = ()
    """Jobs beside `depends_on` that a BLOCKED one waits for."""
    deadline_ms: int | None = None
    is_late: bool = False
    """Whether it was said that it will miss its deadline."""
    queued_ms: int = 0
    """Since when it waits, or began to wait last."""
    goes_on_ms: int | None = None
    """PAUSED because its project's budget is spent: when the next period begins; None: it has to be resumed."""
    predicted_ms: int = 0
    """Predicted length of its whole run; 0: not known."""
    step: int = 0
    total_steps: int = 0
    durable_step: int = 0
    """Step of its newest checkpoint in the blob store; 0: none."""
    durable_node: str | None = None
    """Node that made that one, or the one that it verifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job on a node; of an attempt on several nodes the part on one of them."""

    job: int
    """Number of its job."""
    name: AttemptName
    node: str
    token: int
    state: AttemptState
    is_confirmed: bool
    """Whether its node has said that it holds it."""
    is_closed: bool
    """Whether its node knows that its end is kept here."""
    failure: bytes | None
    outcome: bytes | None
    resumed_step: int
    step: int
    last_seq: int
    create_ms: int
    end_ms: int | None
    fault_budget: str = ""
    """Which budget of its job its end used: INFRASTRUCTURE or USER; empty: none."""
    node_rank: int = 0
    """Rank of the node inside the attempt; the part with rank 0 reports the steps and has the result."""
    nodes: int = 1
    """Nodes of the attempt."""
    rendezvous: str = ""
    """`host:port` at which the part with rank 0 waits for the others; empty until it has said so."""
    is_broken: bool = False
    """Whether another part has ended badly, so that this one is to be stopped."""
    is_leaving: bool = False
    """Whether another part was stopped after it had saved, so that this one is to do the same."""
    slots: int = 1
    """Devices that it holds; on the CPU one."""
    watts: float = 0.0
    """Power of one device as it is predicted; 0: not known."""
    joules: float = 0.0
    """Energy by its node's counters; 0: not measured."""
    first_step_ms: int | None = None
    """When its first step had been made; None before."""
    rows_at_once: int = 0
    """Most rows that it computes at once, since memory ran out before; 0: as many as the spec resolves to."""

    @property
    def part(self) -> tuple[int, int]:
        """What this part is told from all others by: token and rank."""
        return self.token, self.node_rank

    @property
    def wire_token(self) -> str:
        """The fencing token as it is sent: digits of one length, so that text order is number order."""
        return f"{self.token:016d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved state of a job's run."""

    step: int
    attempt: int
    node: str
    digest: str
    size_bytes: int
    create_ms: int
    manifest: bytes | None = None
    """Serialised `Manifest` of its copy in the blob store; None: there is none."""
    durable_ms: int | None = None
    """When the copy was whole."""
    is_pinned: bool = False
    is_best: bool = False
    """Whether its step has the lowest validation loss of the run."""
