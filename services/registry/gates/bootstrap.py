"""The paired bootstrap: how sure it is that one version is better than another on the same rows.

Given is one difference a row. Rows are drawn with replacement, as many as there are, and the mean of each resample is
noted; the bound is a low quantile of these means. The plain quantile is too bold with few rows, so it is taken further
out: at `Phi(-sqrt(n / (n - 1)) * t)` instead of at `1 - confidence`, t being Student's quantile with n - 1 degrees of
freedom (the expanded percentile interval of Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, 4.4).
With a fixed seed the same differences give the same bound on every machine: the generator is Python's Mersenne twister.

Plain Python, and run as a process of its own (`python -m services.registry.gates.bootstrap`, JSON in and out), so that
seconds of drawing never hold up the registry's other calls.
"""

import json
import math
import random
import sys
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from services.registry.child_limits import set_limits

_NORMAL = NormalDist()


def lower_bound(differences: Sequence[float], *, confidence: float, resamples: int, seed: int) -> float:
    """Returns the one-sided lower confidence bound of the mean difference.

    Args:
        differences: One a row, at least 2.
        confidence: 0.5 to below 1.
        resamples: Number of resamples, at least 1.
        seed: Of the draws.
    """
    count = len(differences)
    draw = random.Random(seed).choices  # noqa: S311 - statistics, not secrets
    sums = sorted(math.fsum(draw(differences, k=count)) for _ in range(resamples))
    share = _NORMAL.cdf(-math.sqrt(count / (count - 1)) * student_quantile(confidence, count - 1))
    # The k-th smallest of R values is a quantile of k / (R + 1); rounding down errs on the careful side.
    return sums[max(int(share * (resamples + 1)) - 1, 0)] / count


def student_quantile(confidence: float, degrees: int) -> float:
    """Returns the quantile of Student's distribution, by the expansion in 1 / degrees (Abramowitz and Stegun, 26.7.5).

    From 9 degrees on it is right to three digits for confidences up to 0.9999.
    """
    z = _NORMAL.inv_cdf(confidence)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))


def evidence_of(task: dict[str, Any]) -> dict[str, Any]:
    """Returns rows, effect and lower bound of all rows and of each slice.

    Args:
        task: `differences`, `slices` (label -> positions), `confidence`, `resamples`, `seed`.
    """
    differences = task["differences"]
    parts = {label: [differences[position] for position in places] for label, places in task["slices"].items()}
    return {
        "whole": _figures(differences, task),
        "slices": {label: _figures(part, task) for label, part in parts.items()},
    }


def _figures(differences: Sequence[float], task: dict[str, Any]) -> dict[str, Any]:
    count = len(differences)
    if count < 2:  # one row says nothing of the next one
        return {"rows": count, "effect": math.fsum(differences), "lower_bound": -math.inf}
    bound = lower_bound(differences, confidence=task["confidence"], resamples=task["resamples"], seed=task["seed"])
    return {"rows": count, "effect": math.fsum(differences) / count, "lower_bound": bound}


if __name__ == "__main__":
    set_limits()
    json.dump(evidence_of(json.load(sys.stdin)), sys.stdout)
