"""The page of a sweep: pictures of every trial, safe to open, the same bytes for the same content."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from services.scheduler.sweeps.trials import TrialState as Stored
from services.scheduler.wire.sweeps import sweep_to_proto, trial_to_proto
from tests.unit.scheduler_sweeps.spaces import choices, small_plan, standings, trial
from tuneforge.report_page import PREAMBLE
from tuneforge.sweep_report import sweep_report
from tuneforge.sweep_values import Importances, Sweep, Trial, sweep_from_proto, trial_from_proto
from tuneforge.v1 import sweeps_pb2


def sweep_with(count: int) -> tuple[Sweep, list[Trial]]:
    """Returns a sweep with so many trials: of rates and words, one stopped, one failed with a message of tags."""
    found = [
        trial(n, {"optimization.learning_rate": 10.0**-n, "optimization.schedule": "cosine" if n % 2 else "wsd"}, 1 / n)
        for n in range(1, count + 1)
    ]
    found.append(trial(count + 1, {"optimization.learning_rate": 0.5}, 0.9, state=Stored.PRUNED, stop_step=2))
    found.append(trial(count + 2, {"optimization.learning_rate": 0.7}, state=Stored.FAILED, message="<script>x"))
    plan = small_plan(choices("optimization.learning_rate", 0.1))
    seen = standings(
        plan,
        tuple(found),
        plan_message=sweeps_pb2.SweepPlan(goal=sweeps_pb2.SweepGoal(metric="a<b")).SerializeToString(),
    )
    return sweep_from_proto(sweep_to_proto(seen)), [trial_from_proto(trial_to_proto(each)) for each in found]


def page_of(count: int) -> str:
    """Returns the page of such a sweep."""
    shares = {"optimization.learning_rate": 0.75, "optimization.schedule": 0.25}
    sweep, trials = sweep_with(count)
    return sweep_report(sweep, trials, Importances(shares=shares, round=1, trials=count))


def test_the_page_shows_every_trial_and_what_matters() -> None:
    """History with a dot a trial, a line a trial through its parameters, a bar a parameter, and the table."""
    page = page_of(4)
    assert page.count("<circle") == 5
    assert page.count('class="run ') == 5
    assert page.count('class="run best"') == 1
    assert "75%" in page
    assert "trial 4: 0.25 (succeeded)" in page
    assert len(re.findall(r"<tr><td>\d", page)) == 6
    assert page_of(4) == page


def test_the_page_runs_and_loads_nothing() -> None:
    """It begins as every report does, and what people wrote is text in it."""
    page = page_of(4)
    assert page.startswith(PREAMBLE)
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}

    Tags().feed(page)
    assert "script" not in found
    assert "&lt;script&gt;x" in page
    assert "a&lt;b" in page


def test_a_sweep_without_values_has_a_page() -> None:
    """Nothing to draw is said, not drawn, and so is why no importance is known."""
    page = page_of(0)
    assert "it takes four trials" not in page
    sweep, trials = sweep_with(0)
    page = sweep_report(sweep, trials, Importances(shares={}, round=1, trials=0))
    assert "it takes four trials" in page
    assert "fewer than two" in page
    assert "None of" not in page
