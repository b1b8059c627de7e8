"""What is known of a job's changes and of what was taken out of its log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Numbers in the order of the changes of all jobs; 0: there was none."""

    newest: int = 0
    previous: int = 0
    """The change before the newest one."""
    first: int = 0
    """The change that made the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What was taken out of a log."""

    through_seq: int = 0
    """Events up to this one were thinned out; 0: none."""
    removed: int = 0
    """Events that were taken out."""
    head: bytes = b""
    """Head of the hash chain after event `through_seq`."""
    time_ms: int | None = None
    """When that was done last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive events of one job, serialised once and shared by everybody who reads them."""

    job: int
    first_seq: int
    last_seq: int
    payload: bytes
    """Serialised `EventBatch`."""
