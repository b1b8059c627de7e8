"""A result that need not be trained again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """A version that was trained before from the same."""

    number: int
    """Number of the job that trained it."""
    job: str
    """Name of that job."""
    version: str
    """Name of the version."""
    digest: str
    """Digest of its manifest."""
