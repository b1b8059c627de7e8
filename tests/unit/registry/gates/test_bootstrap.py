"""The paired bootstrap against known figures, and against what its confidence promises."""

import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Callable

import pytest

from services.registry.gates.bootstrap import evidence_of, lower_bound, student_quantile

# Percentage points of Student's distribution, from printed tables.
POINTS = [(0.95, 9, 1.833), (0.975, 9, 2.262), (0.95, 29, 1.699), (0.99, 29, 2.462), (0.999, 60, 3.232)]


@pytest.mark.parametrize(("confidence", "degrees", "expected"), POINTS)
def test_quantiles_are_those_of_the_tables(confidence: float, degrees: int, expected: float) -> None:
    """Student's quantile agrees with printed tables to three digits."""
    assert student_quantile(confidence, degrees) == pytest.approx(expected, abs=2e-3)


def test_the_bound_of_many_rows_is_that_of_the_formula() -> None:
    """With many rows the bound is the mean minus Student's quantile times the standard error, as it must be."""
    draw = random.Random(5)
    differences = [draw.gauss(0.3, 2.0) for _ in range(800)]
    error = statistics.stdev(differences) / math.sqrt(800)
    expected = statistics.fmean(differences) - student_quantile(0.95, 799) * error
    assert lower_bound(differences, confidence=0.95, resamples=2000, seed=1) == pytest.approx(expected, abs=0.1 * error)


def test_the_bound_of_a_tiny_case_is_that_of_all_resamples() -> None:
    """With rows 0, 0, 3 the 27 equally likely resamples are known: the median mean is 1, and 8 of 27 have mean 0."""
    rows = [0.0, 0.0, 3.0]
    assert lower_bound(rows, confidence=0.5, resamples=2001, seed=3) == 1.0
    assert lower_bound(rows, confidence=0.95, resamples=2000, seed=3) == 0.0
    assert lower_bound([2.0] * 30, confidence=0.99, resamples=1000, seed=0) == 2.0


def test_a_seed_fixes_the_bound() -> None:
    """Equal differences and seed give the equal bound; another seed gives another one."""
    rows = [random.Random(1).random() for _ in range(1)] + [math.sin(n) for n in range(50)]
    bounds = [lower_bound(rows, confidence=0.95, resamples=300, seed=seed) for seed in (7, 7, 8)]
    assert bounds[0] == bounds[1] != bounds[2]


def gaussian(draw: random.Random) -> float:
    """Differences of a score that varies freely."""
    return draw.gauss(0.0, 1.0)


def right_or_wrong(draw: random.Random) -> float:
    """Differences of two that are right in 70 % of the rows, each on its own."""
    return float(draw.random() < 0.7) - float(draw.random() < 0.7)


@pytest.mark.parametrize("difference", [gaussian, right_or_wrong])
def test_equal_versions_are_promoted_no_more_often_than_promised(difference: Callable[[random.Random], float]) -> None:
    """Over 600 comparisons of equals, the share whose bound is above 0 is 5 % within three standard errors."""
    runs, rows, alpha = 600, 30, 0.05
    draw = random.Random(20261121)
    promoted = sum(
        lower_bound([difference(draw) for _ in range(rows)], confidence=1 - alpha, resamples=300, seed=run) > 0
        for run in range(runs)
    )
    assert promoted / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert promoted > 0, "a bound that never promotes would pass this test for nothing"


def test_a_better_version_is_found_better() -> None:
    """A gain of half a standard deviation over 100 rows is found in at least 95 % of the comparisons."""
    draw = random.Random(4)
    found = sum(
        lower_bound([draw.gauss(0.5, 1.0) for _ in range(100)], confidence=0.95, resamples=300, seed=run) > 0
        for run in range(60)
    )
    assert found >= 57


def test_the_process_answers_what_the_function_does() -> None:
    """The figures of the child process, whole and by slice, are those computed here."""
    rows = [math.cos(n) / 3 + 0.1 for n in range(40)]
    task = {"differences": rows, "slices": {"short": [0, 1, 2, 3]}, "confidence": 0.9, "resamples": 200, "seed": 9}
    command = [sys.executable, "-m", "services.registry.gates.bootstrap"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == evidence_of(task)
    assert evidence_of(task)["slices"]["short"]["rows"] == 4
    one = evidence_of({**task, "slices": {"one": [5]}})["slices"]["one"]
    assert one["lower_bound"] == -math.inf, "one row says nothing of the next"
