"""What callers do to checkpoints: pin, unpin and delete, each in one transaction with the memory of its request id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.grpckit.errors import ServiceError, not_found
from services.scheduler.jobs import TERMINAL
from services.scheduler.ledger import Ledger
from services.scheduler.records import Checkpoint, Job
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import jobs as job_store
from services.scheduler.store.transaction import Transaction
from services.scheduler.verbs import Call
from services.scheduler.wire.resources import checkpoint_to_proto
from tuneforge.names import CheckpointName


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointVerbs:
    """Pins, unpins and deletes checkpoints. Answers are serialised `Checkpoint` messages."""

    ledger: Ledger

    async def pin(self, name: CheckpointName, call: Call) -> bytes:
        """Keeps a checkpoint's copy in the blob store.

        Raises:
            ServiceError: as `PinCheckpoint` documents.
        """

        def pin(tx: Transaction, job: Job, found: Checkpoint) -> Checkpoint:
            if found.manifest is None:
                raise not_durable(name)
            checkpoint_store.set_pinned(tx, job.number, name.step, is_pinned=True)
            return replace(found, is_pinned=True)

        return await self._change(name, call, pin)

    async def unpin(self, name: CheckpointName, call: Call) -> bytes:
        """Lets the policy have a pinned checkpoint again.

        Raises:
            ServiceError: as `UnpinCheckpoint` documents.
        """

        def unpin(tx: Transaction, job: Job, found: Checkpoint) -> Checkpoint:
            checkpoint_store.set_pinned(tx, job.number, name.step, is_pinned=False)
            return replace(found, is_pinned=False)

        return await self._change(name, call, unpin)

    async def delete(self, name: CheckpointName, call: Call) -> bytes:
        """Takes a checkpoint out of the index and its copy out of the blob store.

        Raises:
            ServiceError: as `DeleteCheckpoint` documents.
        """

        def delete(tx: Transaction, job: Job, found: Checkpoint) -> Checkpoint:
            if (holder := _holder(tx, job, name, found)) is not None:
                raise _in_use(name, *holder)
            checkpoint_store.forget(tx, job.number, str(name), name.step)
            return found

        return await self._change(name, call, delete)

    async def _change(
        self, name: CheckpointName, call: Call, change: Callable[[Transaction, Job, Checkpoint], Checkpoint]
    ) -> bytes:
        def write(tx: Transaction) -> bytes:
            def make() -> bytes:
                job = job_store.find(tx.connection, name.parent)
                found = checkpoint_store.find(tx.connection, job.number, name.step) if job is not None else None
                if job is None or found is None:
                    raise not_found("checkpoint", name)
                return checkpoint_to_proto(str(job.name), change(tx, job, found)).SerializeToString()

            return call.once(tx, make)

        return await self.ledger.write(write)


def not_durable(name: CheckpointName) -> ServiceError:
    """Returns the refusal of what only a checkpoint in the blob store can be asked for."""
    return ServiceError(
        "WRONG_STATE",
        f"{name} was not copied to the blob store; it is on its node only, which drops it for newer ones",
        metadata={"name": str(name), "state": "NOT_DURABLE"},
    )


def _holder(tx: Transaction, job: Job, name: CheckpointName, found: Checkpoint) -> tuple[str, str] | None:
    """Returns who needs a checkpoint and why, or None."""
    if found.is_pinned:
        return str(name), "it is pinned; unpin it first"
    for other in checkpoint_store.needed_by_jobs(tx.connection).get(str(name), ()):
        return other, f"{other} begins from it, or may end with its weights, and has not ended"
    if job.state not in TERMINAL:
        (newest, *_) = checkpoint_store.list_newest(tx.connection, job.number, None, 1)
        if newest.step == name.step:
            return str(job.name), "its job has not ended and would go on from it"
    return None


def _in_use(name: CheckpointName, holder: str, why: str) -> ServiceError:
    return ServiceError("IN_USE", f"{name} cannot be deleted: {why}", metadata={"name": str(name), "holder": holder})
