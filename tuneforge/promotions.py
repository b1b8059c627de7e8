"""Promotion: copies of versions in the operator's deploy location."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.aliases import version_name
from tuneforge.errors import DeadlineExceeded, Reason
from tuneforge.v1 import promotions_pb2 as pb
from tuneforge.values import Word

_POLL_S = 0.2


class PromotionState(Word):
    """State of a promotion."""

    NOT_PROMOTED = "NOT_PROMOTED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETING = "DELETING"
    UNKNOWN = "UNKNOWN"

    @property
    def is_passing(self) -> bool:
        """Whether the registry is at work on it."""
        return self in {PromotionState.IN_PROGRESS, PromotionState.DELETING}


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionChange:
    """One change of a promotion's state."""

    sequence: int
    state: PromotionState
    actor: str
    """Who asked for it; `registry` for what it found out itself."""
    reason: str
    message: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A version's place in the deploy location."""

    name: str
    version: str
    path: str
    """`domain/algorithm/application`; empty for one that was never promoted."""
    destination: str
    """Where the copy is or will be, below the deploy location."""
    state: PromotionState
    patterns: tuple[str, ...]
    num_files: int
    size_bytes: int
    digest: str
    message: str
    """Why it failed, or why its removal did."""
    actor: str
    create_time: datetime | None
    update_time: datetime | None
    changes: tuple[PromotionChange, ...]
    """Newest first, at most 50; empty in lists."""


class Promotions:
    """Promotions of one project; `client.promotions`. Versions are `id/3`, `id@alias`, `id` or a whole name."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def promote(self, version: str, path: str, *, patterns: Sequence[str] = (), reason: str = "") -> Promotion:
        """Begins to copy a version to the deploy location; what is there already is returned as it is.

        Args:
            version: The version.
            path: `domain/algorithm/application`.
            patterns: Names of the files to copy, such as `*.json`; empty: all files.
            reason: Why, for the log.

        Raises:
            FailedPrecondition: It cannot be promoted, or is promoted elsewhere.
        """
        request = pb.PromoteVersionRequest(
            name=self._name(version), path=path, patterns=patterns, reason=reason, request_id=new_request_id()
        )
        registry = self._connections.registry
        return _promotion(registry.call(registry.stub.PromoteVersion, request))

    def unpromote(self, version: str, *, reason: str = "") -> Promotion:
        """Begins to remove the copy of a version; when that fails the promotion is COMPLETED again.

        Raises:
            FailedPrecondition: It is not completed.
        """
        request = pb.UnpromoteVersionRequest(name=self._name(version), reason=reason, request_id=new_request_id())
        registry = self._connections.registry
        return _promotion(registry.call(registry.stub.UnpromoteVersion, request))

    def get(self, version: str) -> Promotion:
        """Returns how it stands with the promotion of a version."""
        request = pb.GetPromotionRequest(name=f"{self._name(version)}/promotion")
        registry = self._connections.registry
        return _promotion(registry.call(registry.stub.GetPromotion, request))

    def list(self, *, states: Sequence[PromotionState] = ()) -> Iterator[Promotion]:
        """Yields the promotions of the project by model and version, those in some states or all."""
        numbers = [pb.PromotionState.Value(f"PROMOTION_STATE_{state.value}") for state in states]
        registry = self._connections.registry
        request = pb.ListPromotionsRequest(parent=names.parent(self._project), states=numbers)
        for page in registry.pages(registry.stub.ListPromotions, request):
            yield from map(_promotion, page.promotions)

    def wait(self, version: str, *, timeout_s: float = 3600.0) -> Promotion:
        """Waits until the registry is not at work on a promotion any more, and returns it.

        Raises:
            DeadlineExceeded: It still is.
        """
        until = time.monotonic() + timeout_s
        name = self._name(version)
        while (promotion := self.get(name)).state.is_passing:
            if time.monotonic() >= until:
                message = f"the promotion of {promotion.version} is still {promotion.state} after {timeout_s:g} s"
                raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, message, cure="Wait longer; it goes on by itself.")
            time.sleep(min(_POLL_S, max(until - time.monotonic(), 0)))
        return promotion

    def _name(self, version: str) -> str:
        return version_name(self._connections, self._project, None, version)


def _promotion(message: pb.Promotion) -> Promotion:
    return Promotion(
        name=message.name,
        version=message.version,
        path=message.path,
        destination=message.destination,
        state=_wire.word(PromotionState, pb.PromotionState.DESCRIPTOR, message.state),
        patterns=tuple(message.patterns),
        num_files=message.num_files,
        size_bytes=message.size_bytes,
        digest=message.digest,
        message=message.message,
        actor=message.actor,
        create_time=_wire.instant_or_none(message.create_time),
        update_time=_wire.instant_or_none(message.update_time),
        changes=tuple(map(_change, message.changes)),
    )


def _change(message: pb.PromotionChange) -> PromotionChange:
    return PromotionChange(
        sequence=message.sequence,
        state=_wire.word(PromotionState, pb.PromotionState.DESCRIPTOR, message.state),
        actor=message.actor,
        reason=message.reason,
        message=message.message,
        time=_wire.instant(message.time),
    )
