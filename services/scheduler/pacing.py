"""How the loop leaves the process to others when the queue is long. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.actions import Action, PlaceAttempt

LONG_QUEUE = 500
"""Jobs from which on a decision is made beside the event loop."""
CLAIMS_TOGETHER = 16
"""Placements that share their statements and a commit. 16: the first waits for the last of them, 5 ms of computing."""
RESTS = 3.0
"""A round is followed by a rest of so many times the time that it looked and decided: what wakes the loop again and
again, such as ten thousand submits, leaves it a quarter of the process at most."""
LONGEST_REST_S = 0.25
"""Longest rest. 0.25: nobody notices it beside the start of an attempt."""


def rest_after(seconds: float) -> float:
    """Returns how long the loop rests after it has looked and decided for so long; both in seconds."""
    return min(LONGEST_REST_S, RESTS * seconds)


def groups_of(actions: Sequence[Action]) -> tuple[list[Action], list[list[PlaceAttempt]]]:
    """Returns actions as they are carried out: all but placements at once, then placements a few at a time."""
    placements = [action for action in actions if isinstance(action, PlaceAttempt)]
    others: list[Action] = [action for action in actions if not isinstance(action, PlaceAttempt)]
    return others, [placements[at : at + CLAIMS_TOGETHER] for at in range(0, len(placements), CLAIMS_TOGETHER)]
