"""Jobs that harm: the failure that says so, and those that lose every node they are started on. Pure rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from services.scheduler.jobs import Failure

NODES = 3
"""Nodes on which a job was lost before a first step, one after the other: once may be chance."""
_LOST = frozenset({"NODE_LOST", "WORKER_LOST"})
_CURE = "Look at what is stored of it and at the log of the scheduler; create it again, under a new name."


@dataclass(frozen=True, slots=True, kw_only=True)
class LostStart:
    """An attempt that ended badly."""

    number: int
    nodes: tuple[str, ...]
    reason: str
    made_steps: bool
    """Whether it finished a step of its own."""


def harm(what: str, evidence: str) -> Failure:
    """Returns why a job is quarantined.

    Args:
        what: What it did, as a sentence.
        evidence: What was seen, e.g. the exception.
    """
    return Failure(
        reason="QUARANTINED",
        message=f"{what} Other jobs go on without it. Evidence: {evidence}",
        cure=_CURE,
        is_user_fault=True,
        metadata=(("evidence", evidence),),
    )


def shown(error: BaseException) -> str:
    """Returns an exception as evidence: its kind and the beginning of its text."""
    return f"{type(error).__name__}: {error}"[:300]


def kills_nodes(lost: Iterable[LostStart]) -> Failure | None:
    """Returns why a job is quarantined whose attempts were lost right at their start on several nodes; None: it is not.

    Args:
        lost: Its attempts, newest first.
    """
    nodes: list[str] = []
    numbers: list[int] = []
    for attempt in lost:
        if attempt.made_steps or attempt.reason not in _LOST:
            break
        nodes += [node for node in attempt.nodes if node not in nodes]
        numbers.append(attempt.number)
    if len(numbers) < NODES or len(nodes) < NODES:
        return None
    places = ", ".join(f"nodes/{node}" for node in sorted(nodes))
    tries = ", ".join(map(str, sorted(numbers)))
    what = f"Attempts {tries} were each lost before a first step, on {places}."
    found = harm(what, f"attempts {tries} on {places}")
    return replace(found, cure="Look at the workers' logs on these nodes; create the job again when it is mended.")
