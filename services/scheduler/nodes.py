"""Nodes: who has registered, what they hold, and what a new start of one means for its attempts."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from services.grpckit.database import Rank
from services.grpckit.errors import FieldViolation, ServiceError, not_found
from services.scheduler.jobs import LIVE_ATTEMPT, AttemptEnd, AttemptState, Failure, RetryPolicy
from services.scheduler.ledger import Ledger
from services.scheduler.records import Node
from services.scheduler.settings import Timing
from services.scheduler.store import attempts as attempt_store
from services.scheduler.store import events as event_store
from services.scheduler.store import nodes as node_store
from services.scheduler.store import stalls
from services.scheduler.store.nodes import Registration
from services.scheduler.store.transaction import Transaction
from services.scheduler.wire.reports import Status
from tuneforge.addresses import split_address

LABELS_MAX = 64
LABEL_LENGTH_MAX = 63
GENERATION_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a node said last."""

    generation: str
    held: Mapping[str, bool]
    """Names of the attempts that it holds, and whether each still runs."""
    raw: tuple[object, ...]
    """The same as messages, for whoever lists the nodes."""


@dataclass(slots=True, kw_only=True)
class Nodes:
    """Registrations and leases."""

    ledger: Ledger
    timing: Timing
    retry: RetryPolicy
    chance: random.Random
    """Source of jitter."""
    poke: Callable[[], None] = lambda: None
    """Wakes the loop."""
    heard: dict[str, Heard] = field(default_factory=dict)
    """Last words by node, since this process has started."""

    @property
    def ttl_ms(self) -> int:
        """How long a lease lasts, in milliseconds."""
        return round(self.timing.lease_ttl_s * 1000)

    async def register(self, new: Registration, held: Iterable[Status], raw: tuple[object, ...]) -> Node:
        """Makes a node known, or known again: attempts that a new start of it does not hold are lost at once."""
        statuses = tuple(held)
        names = {status.name for status in statuses}

        def write(tx: Transaction) -> Node:
            node, is_restart = node_store.register(tx, new, self.ttl_ms)
            if is_restart:
                self._lose_unlisted(tx, node, names)
            return node

        node = await self.ledger.write(write)
        self._remember(new.node, Heard(generation=new.generation, held=_held(statuses), raw=raw))
        return node

    def _lose_unlisted(self, tx: Transaction, node: Node, names: Collection[str]) -> None:
        for attempt in attempt_store.open_ones(tx.connection):
            is_here = attempt.node == node.node and attempt.is_confirmed and attempt.state in LIVE_ATTEMPT
            if not is_here or str(attempt.name) in names:
                continue
            failure = Failure(
                reason="WORKER_LOST",
                message=f"nodes/{node.node} was started anew without attempt {attempt.name.attempt}.",
                cure="Look at the node's log for the end of its process.",
            )
            end = AttemptEnd(state=AttemptState.LOST, failure=failure)
            ending = attempt_store.Ending(attempt=attempt, end=end, retry=self.retry, jitter=self.chance.random())
            attempt_store.finish(tx, ending)
            attempt_store.close(tx, attempt)

    async def heartbeat(
        self, node: str, generation: str, held: Iterable[Status], raw: tuple[object, ...], *, is_draining: bool
    ) -> int:
        """Renews a lease and returns its end in milliseconds since 1970.

        Raises:
            ServiceError: NOT_FOUND for a node that has not registered, STALE_ATTEMPT for an old start of one.
        """
        statuses = tuple(held)

        def write(tx: Transaction) -> tuple[int | None, Node | None]:
            before = node_store.find(tx.connection, node)
            until = node_store.renew(tx, node, generation, is_draining=is_draining, ttl_ms=self.ttl_ms)
            if until is not None and before is not None and before.state == node_store.UNREACHABLE:
                warn_attempts(tx, node, f"nodes/{node} answers again.")
            if until is not None:
                stalls.note(tx, node, {each.name: each.stall for each in statuses if each.stall is not None})
            return until, before

        until_ms, known = await self.ledger.write(write, rank=Rank.PROMPT)
        if known is None:
            raise not_found("node", f"nodes/{node}")
        if until_ms is None:
            raise ServiceError(
                "STALE_ATTEMPT",
                f"nodes/{node} has registered with generation {known.generation}, this is {generation}",
                metadata={"node": f"nodes/{node}", "generation": known.generation},
            )
        self._remember(node, Heard(generation=generation, held=_held(statuses), raw=raw))
        return until_ms

    def _remember(self, node: str, heard: Heard) -> None:
        before = self.heard.get(node)
        self.heard[node] = heard
        if before is None or before.held != heard.held or before.generation != heard.generation:
            self.poke()

    def reported(self) -> dict[str, Mapping[str, bool]]:
        """Returns what each node holds by its last word; a node not heard since the start is missing."""
        return {node: heard.held for node, heard in self.heard.items()}


def _held(statuses: Iterable[Status]) -> dict[str, bool]:
    return {status.name: status.is_live for status in statuses}


def warn_attempts(tx: Transaction, node: str, message: str) -> None:
    """Tells the watchers of a node's running jobs about it."""
    for attempt in attempt_store.open_ones(tx.connection):
        if attempt.node == node and attempt.state in LIVE_ATTEMPT:
            event_store.append_warning(tx, attempt.job, str(attempt.name.parent), message)


def mark_unreachable(tx: Transaction, node: str) -> bool:
    """Marks a node whose lease has run out and tells its watchers; False when it was renewed meanwhile."""
    if not node_store.mark_unreachable(tx, node):
        return False
    warn_attempts(tx, node, f"nodes/{node} does not answer; its attempt may still be running.")
    return True


def registration_problems(new: Registration, slots: int) -> list[FieldViolation]:
    """Returns everything that is wrong with a registration."""
    problems = []
    if split_address(new.address) is None:
        problems.append(FieldViolation("node.address", f"is {new.address!r}: use host:port"))
    if not 1 <= len(new.generation) <= GENERATION_LENGTH_MAX:
        problems.append(
            FieldViolation("node.generation", f"has {len(new.generation)} characters: use 1 to {GENERATION_LENGTH_MAX}")
        )
    if slots < 1:
        problems.append(FieldViolation("node.capacity.slots", f"is {slots}: use 1 or more"))
    problems.extend(label_problems("node.labels", new.labels))
    return problems


def label_problems(path: str, labels: Mapping[str, str]) -> list[FieldViolation]:
    """Returns everything that is wrong with labels."""
    problems = []
    if len(labels) > LABELS_MAX:
        problems.append(FieldViolation(path, f"has {len(labels)} entries: use at most {LABELS_MAX}"))
    for key, value in sorted(labels.items()):
        if not 1 <= len(key) <= LABEL_LENGTH_MAX:
            problems.append(FieldViolation(path, f"has a key of {len(key)} characters: use 1 to {LABEL_LENGTH_MAX}"))
        if not (key + value).isprintable():
            problems.append(FieldViolation(f"{path}[{key!r}]", "has a control character: use printable ones"))
        if len(value) > LABEL_LENGTH_MAX:
            problems.append(
                FieldViolation(f"{path}[{key}]", f"has {len(value)} characters: use at most {LABEL_LENGTH_MAX}")
            )
    return problems
