"""Real processes killed with SIGKILL at random points while real jobs run: none lost, none twice, the same losses.

`make test` makes a few kills over three jobs; `make chaos` makes 200 over fifty, and keeps what it found.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos.killing import Plan, kill_and_judge
from tests.support.chaos.record import FULL, SEED, keep

PLAN = Plan(jobs=50, kills=200, specs=5, seed=SEED) if FULL else Plan(jobs=3, kills=4, specs=1, seed=SEED)


@pytest.mark.heavy
@pytest.mark.chaos
def test_kills_at_random_points_lose_nothing(tmp_path: Path) -> None:
    """Every job succeeds once, its log is dense, and its curve is bit for bit that of a run nobody disturbed."""
    found = kill_and_judge(tmp_path, PLAN)
    what = "SIGKILL at random points of workers, agents, scheduler and registry while real jobs run on three nodes."
    keep("kills", what, found.facts())
    assert not found.problems
    assert found.succeeded == found.jobs >= PLAN.jobs
    assert found.kills.total() == PLAN.kills
