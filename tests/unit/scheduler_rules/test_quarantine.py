"""Which job makes a decision raise, and which attempts say that a job takes nodes down. Pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.actions import Action, Release
from services.scheduler.lifecycle.lost_starts import LostStart, kills_nodes
from services.scheduler.lifecycle.quarantine import decide_for_each
from services.scheduler.observation import Observation
from tests.unit.scheduler_rules.test_decisions import job


@given(numbers=st.sets(st.integers(1, 40)), bad=st.sets(st.integers(1, 40), max_size=4))
def test_each_job_that_raises_is_found_and_the_others_are_decided(numbers: set[int], bad: set[int]) -> None:
    """Whatever jobs make the decision raise, exactly those are left out and everything else is due."""
    seen = Observation(now_ms=0, jobs=tuple(job(number=each) for each in sorted(numbers)), attempts=(), nodes=())

    def decide(seen: Observation) -> list[Action]:
        for each in seen.jobs:
            if each.number in bad:
                raise ValueError(each.number)
        return [Release(job=each.number) for each in seen.jobs]

    actions, broken = decide_for_each(decide, seen)
    assert set(broken) == numbers & bad
    assert all(str(error) == str(number) for number, error in broken.items())
    assert [action.job for action in actions if isinstance(action, Release)] == sorted(numbers - bad)


def test_what_no_job_causes_is_raised() -> None:
    """A decision that raises without any job is the loop's own fault, and no job pays for it."""
    seen = Observation(now_ms=0, jobs=(job(number=1), job(number=2)), attempts=(), nodes=())

    def decide(_: Observation) -> list[Action]:
        raise ValueError("always")

    with pytest.raises(ValueError, match="always"):
        decide_for_each(decide, seen)


def lost(number: int, node: str, reason: str = "NODE_LOST", *, made_steps: bool = False) -> LostStart:
    """Returns how an attempt ended."""
    return LostStart(number=number, nodes=(node,), reason=reason, made_steps=made_steps)


def test_three_nodes_in_a_row_are_poison() -> None:
    """Three nodes, each lost before a first step; a step, another fault or the same node again breaks the row."""
    row = [lost(3, "c"), lost(2, "b", "WORKER_LOST"), lost(1, "a")]
    found = kills_nodes(row)
    assert found is not None
    assert found.reason == "QUARANTINED"
    assert "nodes/a, nodes/b, nodes/c" in found.message
    assert kills_nodes(row[:2]) is None
    assert kills_nodes([lost(3, "c"), lost(2, "b", made_steps=True), lost(1, "a")]) is None
    assert kills_nodes([lost(3, "c"), lost(2, "b", "STALLED"), lost(1, "a")]) is None
    assert kills_nodes([lost(3, "a"), lost(2, "b"), lost(1, "a")]) is None
