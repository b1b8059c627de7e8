"""What the ends of an attempt's parts mean together. Pure rules.

An attempt on several nodes ends when all of its parts have ended. Once one has ended badly the others are stopped, so
that most ends only follow from the one that began it; the attempt's end is that one.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.jobs import AttemptEnd, AttemptState

_FOLLOWS = "GANG_BROKEN"


def deciding_part(ends: Sequence[AttemptEnd]) -> int:
    """Returns the rank of the part whose end is that of the attempt, from the ends of all parts by rank, at least one.

    The part with rank 0 has the result: where it has succeeded, every step was computed by all of them. Else a fault of
    the job's own counts before a loss, a loss before a stop, and what follows from another part's end comes last.
    """
    if ends[0].state is AttemptState.SUCCEEDED:
        return 0
    return min(range(len(ends)), key=lambda rank: (_weight(ends[rank]), rank))


def breaks_gang(end: AttemptEnd) -> bool:
    """Returns whether the other parts of an attempt can do nothing more because one has ended so."""
    return end.state in {AttemptState.FAILED, AttemptState.LOST, AttemptState.CANCELLED}


def leaves_gang(end: AttemptEnd) -> bool:
    """Returns whether the other parts of an attempt are to save and stop too: they do as one, if they train already."""
    return end.state is AttemptState.INTERRUPTED


def _weight(end: AttemptEnd) -> int:
    if end.state is AttemptState.FAILED and end.failure is not None:
        if end.failure.reason == _FOLLOWS:
            return 4
        return 0 if end.failure.is_user_fault else 1
    order = {AttemptState.FAILED: 1, AttemptState.LOST: 2, AttemptState.INTERRUPTED: 3, AttemptState.CANCELLED: 5}
    return order.get(end.state, 6)
