"""What the loop leaves to others when the queue is long."""

from __future__ import annotations

from services.scheduler import pacing
from services.scheduler.actions import Action, MarkUnreachable, PlaceAttempt


def test_a_rest_follows_a_long_look_and_is_bounded() -> None:
    """A round of a short queue is followed by no rest that anybody notices, one of a long queue by a quarter second."""
    assert pacing.rest_after(0.001) < 0.005
    assert pacing.rest_after(0.05) == 0.05 * pacing.RESTS
    assert pacing.rest_after(10.0) == pacing.LONGEST_REST_S


def test_every_action_is_carried_out_once_and_placements_a_few_at_a_time() -> None:
    """Nothing is lost or repeated; leases come before placements, whose order stays."""
    places: list[Action] = [PlaceAttempt(job=number, nodes=("n",), why="w") for number in range(40)]
    lease = MarkUnreachable(node="n")
    others, groups = pacing.groups_of([*places[:20], lease, *places[20:]])
    assert others == [lease]
    assert [action for group in groups for action in group] == places
    assert max(map(len, groups)) == pacing.CLAIMS_TOGETHER
