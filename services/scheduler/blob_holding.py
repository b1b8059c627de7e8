"""Tells the registry which checkpoints' blobs are to stay: in the order of what happened, again until it has heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from services.grpckit.errors import ServiceError
from services.grpckit.logging import get_logger
from services.scheduler.ledger import Ledger
from services.scheduler.store import checkpoints
from services.scheduler.store.checkpoints import BlobHold

_log = get_logger(__name__)

_NOT_THERE = frozenset({"BLOB_MISSING", "DIGEST_MISMATCH", "INVALID_FIELD"})


class BlobKeeper(Protocol):
    """The part of the registry that this module needs."""

    async def hold(self, hold: BlobHold) -> None:
        """Has the blobs of a checkpoint kept, or lets go of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobHolding:
    """Carries out what is to be told."""

    ledger: Ledger
    registry: BlobKeeper

    async def tell(self, hold: BlobHold) -> None:
        """Tells one thing. A checkpoint that the registry does not have is not durable any more.

        Raises:
            ServiceError: the registry does not answer: say it again later.
        """
        try:
            await self.registry.hold(hold)
        except ServiceError as error:
            if error.reason not in _NOT_THERE:
                raise
            _log.warning("a checkpoint is not in the blob store", checkpoint=hold.name, problem=error.message)
            await self.ledger.write(lambda tx: checkpoints.lost(tx, hold))
            return
        await self.ledger.write(lambda tx: checkpoints.told(tx, hold))
