"""Follows an attempt's events for one watcher: first those in the spool, then each as it happens, until the end.

Every watcher has a place of its own in the spool and nothing else; a slow one costs no memory, and replay and live are
one way. Watchers read only up to what the supervisor has seen, so that status and events agree.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from services.grpckit.errors import Reason, ServiceError
from services.trainer.attempts import Attempt, AttemptView
from services.trainer.spool import Record, SpoolGone, SpoolReader

HEARTBEAT_S = 10.0
"""How often a watcher hears of an attempt in which nothing happens."""


async def follow(
    attempt: Attempt, after_seq: int, *, heartbeat_s: float = HEARTBEAT_S
) -> AsyncIterator[tuple[list[Record], AttemptView]]:
    """Gives events in order with the attempt's status, an empty list as a heartbeat, and ends after the attempt's end.

    The last status, and only that, is one of an ended attempt.

    Raises:
        ServiceError: CURSOR_OUT_OF_RANGE: the events after `after_seq` are gone, or that number is not reached yet.
    """
    attempt.refresh_unless_ended()
    if after_seq > attempt.last_seq or after_seq < attempt.oldest_seq - 1:
        raise out_of_range(attempt, f"event {after_seq + 1} cannot be sent")
    reader = SpoolReader(attempt.folder.spool, after_seq=after_seq)
    attempt.watchers += 1
    attempt.call_attention()
    try:
        while True:
            change = attempt.next_change()
            records = _read(attempt, reader)
            view = attempt.view()
            is_behind = reader.position < view.last_seq
            if records and (view.end is None or is_behind):
                # A watcher that stops at the first terminal status must not miss the rest.
                yield records, view if view.end is None else attempt.view_before_end()
            elif view.end is not None:
                yield records, view
                return
            else:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(change.wait(), heartbeat_s)
                    continue
                yield [], view
    finally:
        attempt.watchers -= 1
        reader.close()


def _read(attempt: Attempt, reader: SpoolReader) -> list[Record]:
    try:
        return reader.read(up_to_seq=attempt.last_seq)
    except SpoolGone as gone:
        raise out_of_range(attempt, f"the oldest event is now {gone.oldest_seq}") from None


def out_of_range(attempt: Attempt, problem: str) -> ServiceError:
    """Returns the error for a cursor that is not in the spool."""
    oldest, newest = attempt.oldest_seq, attempt.last_seq
    return ServiceError(
        Reason.CURSOR_OUT_OF_RANGE,
        f"{problem}: {attempt.assignment.name} has the events {oldest} to {newest} here",
        metadata={"oldest_seq": str(oldest), "newest_seq": str(newest)},
    )
