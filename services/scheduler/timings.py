"""How long the loop's parts take, on `/metrics`: looking, deciding, and the claim of a node for a job."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

LOOK = Histogram("tuneforge_scheduler_look_seconds", "Time of a round's look at the database", buckets=_SECONDS)
DECIDE = Histogram("tuneforge_scheduler_decide_seconds", "Time of a round's decisions", buckets=_SECONDS)
_CLAIM_SECONDS = (*(each / 1000 for each in (1, 2, 3, 4, *range(5, 100, 5), *range(100, 300, 25))), 0.3, 0.5, 1.0, 2.5)
"""Finer, because 50 ms are promised."""
CLAIM = Histogram(
    "tuneforge_scheduler_claim_seconds", "From setting about a decided placement to its commit", buckets=_CLAIM_SECONDS
)
PLACED = Counter("tuneforge_scheduler_placements", "Decisions to place a job")
