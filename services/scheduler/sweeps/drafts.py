"""What a caller asks for, before it is a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.grpckit.errors import FieldViolation
from services.scheduler.admission import Draft
from services.scheduler.sweeps.plan import SweepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepDraft:
    """What a caller asks for."""

    project: str
    sweep_id: str
    """Empty: chosen here."""
    job: Draft
    """A job with the spec as it stands: what all trials have in common."""
    plan: SweepPlan
    num_trials: int
    """As the request says it."""
    problems: tuple[FieldViolation, ...]
    """What is wrong with the request already."""
    labels: Mapping[str, str]
    creator: str
