"""How jobs have changed, and what was taken out of their logs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from services.scheduler.watching.records import Changes, Compaction


def history_of(row: Row[Any]) -> dict[str, Any]:
    """Returns the fields of `Job` that say so."""
    return {
        "changes": Changes(newest=row.change_seq, previous=row.previous_change, first=row.first_change),
        "compaction": compaction_of(row),
    }


def compaction_of(row: Any) -> Compaction:
    """Returns what was taken out of the log of a job, by its row."""
    return Compaction(
        through_seq=row.compacted_seq,
        removed=row.removed_events,
        head=row.compacted_head or b"",
        time_ms=row.compact_ms,
    )
