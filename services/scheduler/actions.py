"""What can be done: one class for each kind of action that a decision may ask for; `reconcile.py` does them."""

from __future__ import annotations

from dataclasses import dataclass

from services.scheduler.jobs import Failure
from services.scheduler.records import Attempt, Node
from services.scheduler.store.checkpoints import BlobHold
from services.scheduler.store.outbox import Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkUnreachable:
    """A node's lease has run out."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailDependent:
    """The job that a job waits for did not succeed."""

    job: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The output that a job waits for is there."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceAttempt:
    """A queued job gets an attempt: on one node, or on several that train together."""

    job: int
    nodes: tuple[str, ...]
    """By rank."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseSpent:
    """A job is to be paused because a budget is spent."""

    job: int
    why: str
    goes_on_ms: int | None = None
    """When the next period of the budget begins; None: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """A job goes on that was paused for its project's budget: the next period has begun."""

    job: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt:
    """A running job is to save its state and to leave: for another job, or because its node is drained."""

    job: int
    token: int
    """Of the attempt that was looked at."""
    why: str
    loss_ms: float
    """Device-milliseconds that this is taken to cost."""
    to_job: int | None = None
    """For whom; None: for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SayLate:
    """A job cannot meet its deadline any more; it goes on."""

    job: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A placed attempt is to be started at its node, or found there."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """The events of an attempt are to be read."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An attempt is to be stopped: its job was cancelled or is to leave, or another part of it has ended."""

    attempt: Attempt
    node: Node
    is_saving: bool = False
    """Whether it is to save its state first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lose:
    """An attempt is given up because of its node."""

    attempt: Attempt
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """A node is to be told that an attempt's end is kept, and to end it if it was given up and still runs."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A node holds an attempt that does not count any more: it is to be stopped there, and forgotten."""

    attempt: Attempt
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A result is to be registered."""

    publication: Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class TellBlobHold:
    """The registry is to be told which blobs of a checkpoint stay."""

    hold: BlobHold


Action = (
    MarkUnreachable
    | FailDependent
    | Release
    | PlaceAttempt
    | PauseSpent
    | Renew
    | Preempt
    | SayLate
    | Start
    | Follow
    | Stop
    | Lose
    | Close
    | Fence
    | Publish
    | TellBlobHold
)
