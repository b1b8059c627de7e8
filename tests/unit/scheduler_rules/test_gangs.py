"""What the ends of an attempt's parts mean together."""

from __future__ import annotations

import pytest

from services.scheduler.gangs import breaks_gang, deciding_part, leaves_gang
from services.scheduler.jobs import AttemptEnd, AttemptState, Failure

FOLLOWS = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="GANG_BROKEN", message="m"))
USER = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="LOSS_NOT_FINITE", message="m", is_user_fault=True))
DISK = AttemptEnd(state=AttemptState.FAILED, failure=Failure(reason="DISK_FULL", message="m"))
LOST = AttemptEnd(state=AttemptState.LOST, failure=Failure(reason="WORKER_LOST", message="m"))
LEFT = AttemptEnd(state=AttemptState.INTERRUPTED)
CANCELLED = AttemptEnd(state=AttemptState.CANCELLED)
DONE = AttemptEnd(state=AttemptState.SUCCEEDED)


@pytest.mark.parametrize(
    ("ends", "rank"),
    [
        ([DONE, DONE], 0),
        ([DONE, LOST], 0),
        ([FOLLOWS, LOST], 1),
        ([FOLLOWS, USER, FOLLOWS], 1),
        ([LOST, USER], 1),
        ([DISK, LOST], 0),
        ([FOLLOWS, LEFT], 1),
        ([CANCELLED, LOST], 1),
        ([CANCELLED, FOLLOWS], 1),
        ([LOST, LOST], 0),
        ([LEFT, LEFT], 0),
        ([CANCELLED, DONE], 0),
    ],
)
def test_the_end_is_the_one_that_began_it(ends: list[AttemptEnd], rank: int) -> None:
    """What follows from another part's end is never shown as the cause, and rank 0 alone has a result."""
    assert deciding_part(ends) == rank


def test_others_are_stopped_by_how_one_ended() -> None:
    """A success asks nothing of the others, a stop that saved asks for the same, any other end breaks the gang."""
    assert [breaks_gang(end) for end in (DONE, LEFT, CANCELLED, LOST, FOLLOWS)] == [False, False, True, True, True]
    assert [leaves_gang(end) for end in (DONE, LEFT, CANCELLED, LOST, FOLLOWS)] == [False, True, False, False, False]
