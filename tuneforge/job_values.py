"""What the scheduler knows of a job, its attempts and its checkpoints, as plain values; the calls are in `jobs.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tuneforge import _wire, durations
from tuneforge.estimate_values import Calibration as Calibration
from tuneforge.estimate_values import Interval as Interval
from tuneforge.estimate_values import ResourceEstimate as ResourceEstimate
from tuneforge.estimate_values import calibration_from_proto as calibration_from_proto
from tuneforge.estimate_values import memory_from_proto
from tuneforge.estimate_values import resource_estimate_from_proto as resource_estimate_from_proto
from tuneforge.events import StateChange, state_change
from tuneforge.explanation_values import JobForecast, forecast_from_proto
from tuneforge.job_options import FaultBudget as FaultBudget
from tuneforge.job_options import FaultCount, fault_count_from_proto
from tuneforge.manifest import Manifest
from tuneforge.queue_values import Budget, Spending, budget_from_proto, spending_from_proto
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.scheduling import Scheduling, scheduling_from_proto
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import jobs_pb2 as pb
from tuneforge.v1 import nodes_pb2, scheduling_pb2
from tuneforge.values import Failure, VersionRef, Word
from tuneforge.verification_values import ResumeVerification, verification_from_proto


class JobState(Word):
    """States of a job."""

    UNKNOWN = "UNKNOWN"
    BLOCKED = "BLOCKED"
    """It waits for the job whose output it starts from."""
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    """Its attempt saves its state and leaves its device."""
    PAUSED = "PAUSED"
    """It holds no device and waits to be resumed."""
    PREEMPTING = "PREEMPTING"
    """It gives way to another job; it will be queued again."""
    PUBLISHING = "PUBLISHING"
    """Its result is being registered; it cannot be cancelled any more."""
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this state will never leave it."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class AttemptState(Word):
    """States of an attempt."""

    UNKNOWN = "UNKNOWN"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    """It stopped on request after it had saved a checkpoint."""
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    """Its process ended without saying how."""


class JobCondition(Word):
    """Something to know about a job that is not a state."""

    UNKNOWN = "UNKNOWN"
    UNREACHABLE = "UNREACHABLE"
    """The node of its attempt does not answer; the attempt may still be running."""
    LATE = "LATE"
    """It will not end before its deadline, or did not."""
    STALLED = "STALLED"
    """Its attempt makes no progress; the newest `Stall` events, one from each of its nodes, have the stacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLedger:
    """What devices were used for, in device-seconds; attempts that have ended are in it."""

    attained: float
    """Held in all."""
    lost_to_preemption: float
    """Work done again, and restores, because jobs gave way or left a drained node."""
    lost_to_faults: float
    """The same because of faults of nodes, processes and networks."""
    saved: float
    """Work of attempts that were stopped or lost which a checkpoint has kept."""
    preemptions: int
    """How often a job gave way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One fine-tuning run as it was when it was read."""

    name: str
    """`projects/{project}/jobs/{job}`."""
    spec: TrainingSpec
    """Defaults filled in and names pinned."""
    state: JobState
    last_change: StateChange | None
    """Why it is in this state."""
    failure: Failure | None
    """Why it failed; set with FAILED."""
    attempt: int
    """Attempts so far."""
    version: VersionRef | None
    """What it published; set with SUCCEEDED."""
    base: VersionRef | None
    train: VersionRef | None
    validation: VersionRef | None
    step: int
    """Last finished optimiser step."""
    total_steps: int
    """0 until the first attempt has resolved them."""
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    creator: str
    labels: Mapping[str, str]
    memory_estimate: MemoryEstimate | None
    """Predicted peak memory of one attempt."""
    resource_estimate: ResourceEstimate | None
    """What it was predicted to take when it was created."""
    forecast: JobForecast | None
    """When it starts and ends, as it was foreseen some seconds ago; None: it has ended or was not looked at."""
    conditions: tuple[JobCondition, ...]
    latest_job_seq: int
    """Number of its newest event."""
    from_checkpoint: str
    """Checkpoint that its run begins from; empty: the beginning."""
    verification: ResumeVerification | None
    """What it verifies; None: it is a run that publishes a version."""
    scheduling: Scheduling
    """When and where it may run, and before whom."""
    ledger: WorkLedger
    """What its devices were used for."""
    queued_time: datetime | None
    """Since when it waits for a node, or when it began to wait last."""
    budget: Budget | None = None
    """What it may spend; None: no limit."""
    spent: Spending | None = None
    """What it has spent."""
    warnings: tuple[str, ...] = ()
    """What its creator should know: that it is predicted to spend more than its budget."""
    faults: FaultCount | None = None
    """Its faults of both kinds, and what is left of their budgets; None with jobs of earlier releases."""
    rerun_of: str = ""
    """Job whose pinned spec it has; empty: none."""
    training_digest: str = ""
    """Digest of all that its result depends on; empty while it is BLOCKED."""
    reused_from: str = ""
    """Job whose version is its result; empty: it trained."""
    ttl_s: float | None = None
    """Seconds after its end until it is removed; None: it stays."""
    expire_time: datetime | None = None
    """When it is removed."""

    @property
    def id(self) -> str:
        """Last part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def has_no_start_in_sight(self) -> bool:
        """Whether it is QUEUED and nothing that is known would give it a node; `client.jobs.explain` says why."""
        told = self.forecast
        return self.state is JobState.QUEUED and told is not None and (told.start, told.end) == (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptPart:
    """What one node does of an attempt that runs on several."""

    node_rank: int
    """Rank of the node inside the attempt, from 0."""
    node: str
    state: AttemptState
    failure: Failure | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a job, on one node or on several that train together."""

    name: str
    """`projects/{project}/jobs/{job}/attempts/{attempt}`."""
    node: str
    """Where it runs; of several nodes the first, which reports the steps."""
    state: AttemptState
    failure: Failure | None
    resumed_step: int
    """Step it began after; 0: from the beginning."""
    step: int
    create_time: datetime
    end_time: datetime | None
    fault_budget: FaultBudget = FaultBudget.UNSPECIFIED
    """Which budget of its job its end used."""
    rows_at_once: int = 0
    """Most rows that it computes at once, since memory ran out before; 0: as many as the spec resolves to."""
    parts: tuple[AttemptPart, ...] = ()
    """Its part on each node, by rank; empty with one node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved state of a job's run."""

    name: str
    """`projects/{project}/jobs/{job}/checkpoints/{step}`."""
    step: int
    digest: str
    size_bytes: int
    node: str
    """Node that has it; empty: none any more."""
    attempt: int
    """Attempt that saved it."""
    create_time: datetime
    manifest: Manifest | None
    """Its files in the blob store; None: it was not copied there."""
    durable_time: datetime | None
    """When it was copied there."""
    is_pinned: bool
    """Whether it stays whatever `checkpointing.keep_last` says."""
    is_best: bool
    """Whether no validation loss of the run was lower than the one after its step."""


def work_ledger_from_proto(message: scheduling_pb2.WorkLedger) -> WorkLedger:
    """Converts a ledger."""
    return WorkLedger(
        attained=message.attained,
        lost_to_preemption=message.lost_to_preemption,
        lost_to_faults=message.lost_to_faults,
        saved=message.saved,
        preemptions=message.preemptions,
    )


def job_from_proto(message: pb.Job) -> Job:
    """Converts a job."""
    return Job(
        name=message.name,
        spec=spec_from_proto(message.spec),
        state=_wire.word(JobState, pb.JobState.DESCRIPTOR, message.state),
        last_change=state_change(message.last_change) if message.HasField("last_change") else None,
        failure=_wire.failure(message.failure),
        attempt=message.attempt,
        version=_wire.version_ref(message.version),
        base=_wire.version_ref(message.base),
        train=_wire.version_ref(message.train),
        validation=_wire.version_ref(message.validation),
        step=message.step,
        total_steps=message.total_steps,
        create_time=_wire.instant(message.create_time),
        start_time=_wire.instant_or_none(message.start_time),
        end_time=_wire.instant_or_none(message.end_time),
        creator=message.creator,
        labels=_wire.frozen(message.labels),
        memory_estimate=memory_from_proto(message.memory_estimate) if message.HasField("memory_estimate") else None,
        resource_estimate=resource_estimate_from_proto(message.resource_estimate)
        if message.HasField("resource_estimate")
        else None,
        forecast=forecast_from_proto(message.forecast) if message.HasField("forecast") else None,
        conditions=tuple(_wire.word(JobCondition, pb.JobCondition.DESCRIPTOR, each) for each in message.conditions),
        latest_job_seq=message.latest_job_seq,
        from_checkpoint=message.from_checkpoint,
        verification=verification_from_proto(message.verification) if message.HasField("verification") else None,
        budget=budget_from_proto(message.budget.limit) if message.budget.HasField("limit") else None,
        spent=spending_from_proto(message.budget.spent) if message.budget.HasField("spent") else None,
        warnings=tuple(message.warnings),
        scheduling=scheduling_from_proto(message.scheduling),
        ledger=work_ledger_from_proto(message.ledger),
        queued_time=_wire.instant_or_none(message.queued_time),
        faults=fault_count_from_proto(message.faults) if message.HasField("faults") else None,
        rerun_of=message.rerun_of,
        training_digest=message.training_digest,
        reused_from=message.reused_from,
        ttl_s=durations.to_seconds(message.ttl) if message.HasField("ttl") else None,
        expire_time=_wire.instant_or_none(message.expire_time),
    )


def attempt_from_proto(message: pb.Attempt) -> Attempt:
    """Converts an attempt."""
    return Attempt(
        name=message.name,
        node=message.node,
        state=_wire.word(AttemptState, nodes_pb2.AttemptState.DESCRIPTOR, message.state),
        failure=_wire.failure(message.failure),
        resumed_step=message.resumed_step,
        step=message.step,
        create_time=_wire.instant(message.create_time),
        end_time=_wire.instant_or_none(message.end_time),
        fault_budget=_wire.word(FaultBudget, pb.FaultBudget.DESCRIPTOR, message.fault_budget),
        rows_at_once=message.rows_at_once,
        parts=tuple(map(_part_from_proto, message.parts)),
    )


def _part_from_proto(message: pb.AttemptPart) -> AttemptPart:
    return AttemptPart(
        node_rank=message.node_rank,
        node=message.node,
        state=_wire.word(AttemptState, nodes_pb2.AttemptState.DESCRIPTOR, message.state),
        failure=_wire.failure(message.failure),
        end_time=_wire.instant_or_none(message.end_time),
    )


def checkpoint_from_proto(message: pb.Checkpoint) -> Checkpoint:
    """Converts a checkpoint."""
    return Checkpoint(
        name=message.name,
        step=int(message.name.rpartition("/")[2]),
        digest=message.digest,
        size_bytes=message.size_bytes,
        node=message.node,
        attempt=message.attempt,
        create_time=_wire.instant(message.create_time),
        manifest=_wire.manifest(message.manifest) if message.HasField("manifest") else None,
        durable_time=_wire.instant_or_none(message.durable_time),
        is_pinned=message.is_pinned,
        is_best=message.is_best,
    )
