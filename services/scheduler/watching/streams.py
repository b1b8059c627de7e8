"""All streams that the scheduler serves to watchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.observation import Observation
from services.scheduler.settings import Timing
from services.scheduler.watch import Watches
from services.scheduler.watching.board import Board
from services.scheduler.watching.feed import Feed
from services.scheduler.watching.jobs import JobsWatches
from services.scheduler.watching.queue import QueueWatches


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The streams, by what they tell of."""

    ledger: Ledger
    job: Watches
    """Every event of one job."""
    jobs: JobsWatches
    """The changes of many jobs."""
    feed: Feed
    """What the watchers of many share."""
    queue: QueueWatches
    """The queue as it stands."""


def streams_over(
    ledger: Ledger, broadcast: Broadcast, timing: Timing, look: Callable[[], Observation | None]
) -> Streams:
    """Puts the streams over one database together; `look` gives what the loop saw last."""
    feed = Feed(ledger, broadcast, pause_s=timing.feed_pause_s, poll_s=timing.longest_tick_s)
    return Streams(
        ledger=ledger,
        job=Watches(ledger, broadcast, timing.watch_heartbeat_s),
        jobs=JobsWatches(ledger, broadcast, feed, timing.watch_heartbeat_s),
        feed=feed,
        queue=QueueWatches(Board(look, broadcast, timing.board_pause_s), broadcast, timing.watch_heartbeat_s),
    )
