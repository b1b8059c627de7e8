"""Why jobs are where they are and what comes next, as plain values; the calls are in `foresight.py`."""

from dataclasses import dataclass
from datetime import datetime

from tuneforge import _wire
from tuneforge.v1 import explanations_pb2 as pb
from tuneforge.values import Word


class ForecastBasis(Word):
    """What a forecast is based on."""

    UNKNOWN = "UNKNOWN"
    STEPS = "STEPS"
    """The measured times of the job's own steps."""
    ESTIMATE = "ESTIMATE"
    """What its spec was predicted to take."""
    HISTORY = "HISTORY"
    """How long finished runs took."""
    GUESS = "GUESS"
    """Nothing is known of it."""


class BlockerReason(Word):
    """Why a job waits."""

    UNKNOWN = "UNKNOWN"
    NO_NODE = "NO_NODE"
    LABELS = "LABELS"
    DEVICES = "DEVICES"
    MEMORY = "MEMORY"
    CPU = "CPU"
    FEW_NODES = "FEW_NODES"
    """Fewer nodes could hold a part than it has parts."""
    SLOTS_TAKEN = "SLOTS_TAKEN"
    PROJECT_DEVICES = "PROJECT_DEVICES"
    """Its project holds as many devices as it may."""
    PROJECT_JOBS = "PROJECT_JOBS"
    """Its project runs as many jobs as it may."""
    BUDGET = "BUDGET"
    OTHERS_FIRST = "OTHERS_FIRST"
    START_AFTER = "START_AFTER"
    RETRY_WAIT = "RETRY_WAIT"
    DEPENDENCY = "DEPENDENCY"
    PAUSED = "PAUSED"
    QUEUE_HELD = "QUEUE_HELD"
    NODES_KEPT = "NODES_KEPT"
    """Nodes are kept free for a larger job that has waited long."""
    LEAVING = "LEAVING"
    """Jobs that were asked to leave still hold the nodes that are promised to it."""
    NODES_AWAY = "NODES_AWAY"
    STILL_HELD = "STILL_HELD"
    """It was asked to leave its nodes and still holds them."""
    UNLIKE_NODES = "UNLIKE_NODES"
    """Enough nodes have room, and too few of them are alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeInterval:
    """A moment that is not known exactly."""

    expected: datetime
    earliest: datetime
    latest: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForecast:
    """When a job starts and ends."""

    start: TimeInterval | None
    """None: it has its nodes, or it cannot be foreseen."""
    end: TimeInterval | None
    """None: it cannot be foreseen."""
    basis: ForecastBasis
    why: str
    """The basis as a sentence, with what the intervals were widened by."""
    make_time: datetime
    num_looked_at: int
    """Waiting jobs that the planner was run with."""
    num_waiting: int
    """Waiting jobs in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """One thing that a job waits for."""

    reason: BlockerReason
    message: str
    cure: str
    """What would end it."""
    jobs: tuple[str, ...]
    """Jobs that it is about, at most 10; those of projects that the caller may not read are left out."""
    num_jobs: int
    """All of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePosition:
    """Where a job stands in the order."""

    position: int
    """From 1 over all projects."""
    waiting: int
    position_in_project: int
    waiting_in_project: int
    ahead: tuple[str, ...]
    """Jobs before it, in order, at most 10."""
    priority: int
    """Class; a higher one goes first."""
    is_over_share: bool
    """Whether its project was given more than its share."""
    level: int
    """Level of work that it was given so far; a lower one goes first."""
    attained_device_seconds: float
    project_usage: float
    """Device-seconds that its project was given over its weight, older work counting less."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a running job is."""

    step: int
    total_steps: int
    """0: not known yet."""
    step_seconds: float
    """Median of the newest steps; 0: none was measured."""
    step_seconds_low: float
    """One step in ten took less."""
    step_seconds_high: float
    """One step in ten took more."""
    steps_measured: int
    nodes: tuple[str, ...]
    stop_costs_device_seconds: float
    """What would be lost if it were stopped now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemptor:
    """A waiting job that may have a running one stopped."""

    job: str
    """Empty: it is of a project that the caller may not read."""
    why: str
    is_due: bool
    """Whether the planner would do so now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinding:
    """What one node says to a job."""

    node: str
    could_hold: bool
    """If it were idle."""
    why_not: str
    """Empty: it has room now."""
    free_slots: int
    slots: int
    missing_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExplanation:
    """Why a job is in its state, and what comes next."""

    name: str
    state: str
    reason: str
    """Stable word of its last change."""
    summary: str
    blockers: tuple[Blocker, ...]
    """Empty for a job that has a node or has ended, and for one that starts now."""
    position: QueuePosition | None
    """None: it does not wait for a node."""
    forecast: JobForecast | None
    progress: RunProgress | None
    """None: it has no node."""
    preemptors: tuple[Preemptor, ...]
    nodes: tuple[NodeFinding, ...]
    observe_time: datetime
    num_may_overtake: int
    """Later jobs that ask for less and may get nodes before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplacedJob:
    """A running job that a new one would have stopped."""

    job: str
    """Empty: it is of a project that the caller may not read."""
    costs_device_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayedJob:
    """A job whose end a new one puts off."""

    job: str
    delay_seconds: float
    end_before: datetime
    end_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSimulation:
    """What would become of a job that is not created."""

    forecast: JobForecast
    nodes: tuple[str, ...]
    """Where it is expected to start; empty: not foreseen."""
    displaced: tuple[DisplacedJob, ...]
    delayed: tuple[DelayedJob, ...]
    """The longest delay first, at most 100."""
    num_delayed: int
    blockers: tuple[Blocker, ...]
    """Empty: it would start at once."""
    position: QueuePosition | None
    nodes_checked: tuple[NodeFinding, ...]


class ForecastEvent(Word):
    """What a promise was about."""

    UNKNOWN = "UNKNOWN"
    START = "START"
    END = "END"


class ForecastSource(Word):
    """Who was promised something."""

    UNKNOWN = "UNKNOWN"
    CREATION = "CREATION"
    EXPLANATION = "EXPLANATION"
    SIMULATION = "SIMULATION"


class ForecastOutcome(Word):
    """What became of a promise."""

    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    KEPT = "KEPT"
    EARLY = "EARLY"
    LATE = "LATE"
    VOID = "VOID"
    """Somebody paused or cancelled the job, or it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """One promise and what became of it."""

    job: str
    """Empty: simulated, and not created so far."""
    event: ForecastEvent
    source: ForecastSource
    make_time: datetime
    told: TimeInterval
    real_time: datetime | None
    outcome: ForecastOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastCalibration:
    """How good promises were, by what they were about."""

    event: ForecastEvent
    decided: int
    kept_share: float
    """Share of which reality fell into the interval."""
    median_ratio: float
    """Real wait over the expected one, before any correction."""
    low_ratio: float
    high_ratio: float
    is_applied: bool
    """Whether new intervals are widened by it."""


def forecast_from_proto(message: pb.JobForecast) -> JobForecast:
    """Converts when a job starts and ends."""
    return JobForecast(
        start=_interval(message.start) if message.HasField("start") else None,
        end=_interval(message.end) if message.HasField("end") else None,
        basis=_wire.word(ForecastBasis, pb.ForecastBasis.DESCRIPTOR, message.basis),
        why=message.why,
        make_time=_wire.instant(message.make_time),
        num_looked_at=message.num_looked_at,
        num_waiting=message.num_waiting,
    )


def _interval(message: pb.TimeInterval) -> TimeInterval:
    return TimeInterval(
        expected=_wire.instant(message.expected),
        earliest=_wire.instant(message.earliest),
        latest=_wire.instant(message.latest),
    )
