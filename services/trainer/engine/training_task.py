"""What goes into a training run, what comes out of it, and how it fails: the engine's face to the worker.

No torch here: the node agent may import it too. The run itself is `training.train`.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from services.modelkit.artifacts import LocalArtifact
from tuneforge.checks import Check
from tuneforge.data.split import Side, Split
from tuneforge.errors import Reason
from tuneforge.manifest import Manifest
from tuneforge.specs.spec import TrainingSpec
from tuneforge.v1 import events_pb2

if TYPE_CHECKING:
    from services.trainer.engine.token_cache import TokenCache  # numpy, which the node agent does without

Payload = (
    events_pb2.StepMetrics
    | events_pb2.EvaluationMetrics
    | events_pb2.TaskMetrics
    | events_pb2.LogLine
    | events_pb2.CheckpointSaved
    | events_pb2.Sample
    | events_pb2.ResumedFrom
    | events_pb2.Resolved
)
"""What the engine reports; each is one field of `Event.payload`."""


class StopRequest(enum.Enum):
    """What a worker is asked for; the engine looks at every step's end."""

    CHECKPOINT = "checkpoint"
    """Save the state, then end as INTERRUPTED."""
    CANCEL = "cancel"
    """End as CANCELLED; nothing is saved."""


class EventSink(Protocol):
    """Where reports go."""

    def emit(self, payload: Payload) -> None:
        """Takes one report; it is durable against the end of the process when this returns."""


class Pulse(Protocol):
    """Where a run shows that it is alive; who reads it takes a long silence for a stall."""

    def beat(self) -> None:
        """Notes that something was done; the next beat is waited for from now on."""

    def rest(self) -> None:
        """Notes that no beat is to be waited for."""


class NoPulse:
    """The pulse of a run that nobody watches."""

    def beat(self) -> None:
        """Does nothing."""

    def rest(self) -> None:
        """Does nothing."""


class RunResult(enum.Enum):
    """How a run ended; a run that fails raises `TrainingFault` instead."""

    SUCCEEDED = "SUCCEEDED"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"


class ArtifactKind(enum.Enum):
    """What the files of the output folder are."""

    MODEL = "model"
    ADAPTER = "adapter"


class Fault(enum.Enum):
    """Whose fault a failure is; the two have separate retry budgets."""

    USER = "user"
    """The same input fails again."""
    INFRASTRUCTURE = "infrastructure"
    """The same input may well succeed next time, or elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """Which rows of some files are taken."""

    folder: Path | None = None
    """What the files' paths in their data set are relative to; None: their names are their paths."""
    split: Split | None = None
    """How rows are divided, by their ids or else by their files; None: not, all are taken."""
    side: Side = Side.TRAIN
    """The side that is taken."""
    share: float = 1.0
    """Share of that side's rows that is taken, (0, 1]."""
    seed: int = 0
    """Decides which rows the share has."""


ALL_ROWS: Final = RowChoice()
GANG_TIMEOUT_S: Final = 600.0
"""Longer than the slowest thing that one process of a gang does while the others wait: writing a large checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Place of one process among several that train one model together."""

    rank: int
    """Number of this process, 0 to size - 1."""
    size: int
    """Processes, >= 2."""
    address: str
    """`host:port` of the first process."""
    listening: int | None = None
    """Descriptor of the socket that the first process listens with; None in the others."""
    name: str = ""
    """Tells this gang from older ones of the same job."""
    timeout_s: float = GANG_TIMEOUT_S
    """How long a process waits for another one, at the start and in each exchange, in seconds."""

    @property
    def host_and_port(self) -> tuple[str, int]:
        """`address`, taken apart."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """All that one attempt needs; every file is on this machine."""

    spec: TrainingSpec
    """Validated; defaults may be missing."""
    base: Sequence[LocalArtifact]
    """The model to start from: a whole model, then the adapters that were trained on it, in order."""
    train: Sequence[Path]
    """Files of the rows to learn from, in any format that `tuneforge.data` reads."""
    train_rows: RowChoice = ALL_ROWS
    """Which rows of these are taken."""
    validation: Sequence[Path] = ()
    """Files of the rows that the validation loss is computed on."""
    validation_rows: RowChoice = ALL_ROWS
    """Which rows of these are taken."""
    checkpoints: Path
    """The job's checkpoints, of all its attempts."""
    attempt: int
    """Number of this attempt, from 1."""
    rows_at_once: int = 0
    """Most rows that are computed at once, since memory ran out with more; 0: no limit."""
    output: Path
    """Folder that the artifact is written into; emptied first."""
    branches_from: str = ""
    """Digest of another job's checkpoint: going on from that one, choices are made anew. Empty: there is none."""
    replay_to: int = 0
    """Step to stop after without saving anything, since the run is only done again. 0: it is a run."""
    threads: int
    """CPU threads that were leased for the attempt, >= 1."""
    device: str = "cpu"
    """`cpu` or `cuda:N`."""
    tokens: "TokenCache | None" = None
    """Where rows are kept as tokens; None makes them anew."""
    pulse: Pulse = field(default_factory=NoPulse)
    """Beats with each micro-batch and each generated token of the loop."""
    seat: Seat | None = None
    """Place among the processes that train together; None: this one trains alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How a run ended."""

    result: RunResult
    """The end."""
    step: int
    """Last finished step."""
    artifact: Manifest | None = None
    """Files of the output folder; set with SUCCEEDED."""
    artifact_kind: ArtifactKind | None = None
    """What they are; set with SUCCEEDED."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """`loss`, `evaluation_loss` (with validation rows), `train_seconds`, `train_samples_per_second`,
    `peak_memory_bytes`, `tokens`."""
    checks: tuple[Check, ...] = ()
    """What the run found of its own result; set with SUCCEEDED."""
    not_run: Mapping[str, str] = field(default_factory=dict)
    """Checks that could not be made, by name, with the reason."""
    replayed_weights_digest: str = ""
    """SHA-256 of the file of weights after the last step of a replay; empty for a run."""


class TrainingFault(Exception):
    """A run cannot go on, for a reason that a person can act on.

    Attributes:
        reason: Stable across releases.
        message: What is wrong, with the value that is wrong.
        cure: What to do about it.
        fault: Whose fault it is.
        metadata: All that varies in `message`, by key.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        cure: str,
        fault: Fault = Fault.USER,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{message} {cure}")
        self.reason = reason
        self.message = message
        self.cure = cure
        self.fault = fault
        self.metadata = dict(metadata or {})
