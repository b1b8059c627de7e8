"""Claims of nodes for jobs that were decided to be placed: a few of them share one write."""

from __future__ import annotations

import time
from collections.abc import Sequence

from services.grpckit.database import Rank
from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.actions import PlaceAttempt
from services.scheduler.ledger import Ledger
from services.scheduler.records import Attempt
from services.scheduler.store import nodes as node_store
from services.scheduler.store.placing import Placing, place
from services.scheduler.store.transaction import Transaction
from services.scheduler.timings import CLAIM, PLACED

_log = get_logger(__name__)


async def claim(ledger: Ledger, group: Sequence[PlaceAttempt]) -> list[Attempt]:
    """Places jobs in one write and returns the parts of their attempts; where it fails, each in a write of its own.

    None where the database does not take writes: it would not take those either, and the next look decides anew.
    """
    began = time.perf_counter()
    try:
        parts = await ledger.write(lambda tx: _place(tx, group), rank=Rank.PROMPT)
    except ServiceError as error:
        _log.warning("jobs are placed later", jobs=len(group), problem=f"{error.reason}: {error.message}")
        return []
    except Exception:  # noqa: BLE001 - one that cannot be placed must not keep the others from it
        if len(group) > 1:
            return [part for each in group for part in await claim(ledger, [each])]
        _log.error("a job could not be placed", job=group[0].job, exc_info=True)
        return []
    for _ in {part.job for part in parts}:
        PLACED.inc()
        CLAIM.observe(time.perf_counter() - began)
    return parts


def _place(tx: Transaction, group: Sequence[PlaceAttempt]) -> list[Attempt]:
    """Places those whose nodes all still take work."""
    ready = node_store.ready_ones(tx, {node for each in group for node in each.nodes})
    able = [each for each in group if ready.issuperset(each.nodes)]
    return place(tx, *(Placing(job=each.job, nodes=each.nodes, why=each.why) for each in able))
