"""The RPCs of checkpoints: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

from typing import Any

import grpc

from services.grpckit.errors import not_found
from services.grpckit.pages import cut, page_of
from services.scheduler.checkpoint_verbs import CheckpointVerbs
from services.scheduler.ledger import Ledger
from services.scheduler.store import checkpoints as checkpoint_store
from services.scheduler.store import jobs as job_store
from services.scheduler.verbs import call_of
from services.scheduler.verification import Verification
from services.scheduler.wire.resources import checkpoint_to_proto
from tuneforge.names import CheckpointName, JobName
from tuneforge.v1 import jobs_pb2, scheduler_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class CheckpointCalls:
    """The methods of checkpoints; `SchedulerServicer` takes them over.

    Args:
        ledger: The store.
        verbs: What callers do to checkpoints.
        verification: Makes verifications.
    """

    def __init__(self, ledger: Ledger, verbs: CheckpointVerbs, verification: Verification) -> None:
        self._ledger = ledger
        self._verbs = verbs
        self._verification = verification

    async def ListCheckpoints(
        self, request: scheduler_pb2.ListCheckpointsRequest, _: Context
    ) -> scheduler_pb2.ListCheckpointsResponse:
        """Lists the checkpoints of a job, newest first."""
        name = JobName.parse(request.parent)
        page = page_of(request.page_size, request.page_token, scope=f"ListCheckpoints {name}")
        before = None if page.after is None else page.after_number(0)
        job = await self._ledger.read(lambda db: job_store.find(db, name))
        if job is None:
            raise not_found("job", name)
        rows = await self._ledger.read(lambda db: checkpoint_store.list_newest(db, job.number, before, page.size + 1))
        shown, token = cut(rows, page, lambda checkpoint: str(checkpoint.step))
        return scheduler_pb2.ListCheckpointsResponse(
            checkpoints=[checkpoint_to_proto(str(name), each) for each in shown], next_page_token=token
        )

    async def GetCheckpoint(self, request: scheduler_pb2.GetCheckpointRequest, _: Context) -> jobs_pb2.Checkpoint:
        """Returns a checkpoint."""
        name = CheckpointName.parse(request.name)
        found = await self._ledger.read(lambda db: checkpoint_store.find_by_name(db, name))
        if found is None:
            raise not_found("checkpoint", name)
        return checkpoint_to_proto(str(name.parent), found)

    async def PinCheckpoint(self, request: scheduler_pb2.PinCheckpointRequest, _: Context) -> jobs_pb2.Checkpoint:
        """Keeps a checkpoint."""
        name = CheckpointName.parse(request.name)
        answer = await self._verbs.pin(name, call_of(request, name.project, "PinCheckpoint"))
        return jobs_pb2.Checkpoint.FromString(answer)

    async def UnpinCheckpoint(self, request: scheduler_pb2.UnpinCheckpointRequest, _: Context) -> jobs_pb2.Checkpoint:
        """Lets a pinned checkpoint go with the others."""
        name = CheckpointName.parse(request.name)
        answer = await self._verbs.unpin(name, call_of(request, name.project, "UnpinCheckpoint"))
        return jobs_pb2.Checkpoint.FromString(answer)

    async def DeleteCheckpoint(self, request: scheduler_pb2.DeleteCheckpointRequest, _: Context) -> jobs_pb2.Checkpoint:
        """Deletes a checkpoint."""
        name = CheckpointName.parse(request.name)
        answer = await self._verbs.delete(name, call_of(request, name.project, "DeleteCheckpoint"))
        return jobs_pb2.Checkpoint.FromString(answer)

    async def VerifyResume(self, request: scheduler_pb2.VerifyResumeRequest, _: Context) -> jobs_pb2.Job:
        """Makes a verification."""
        name = CheckpointName.parse(request.name)
        call = call_of(request, name.project, "VerifyResume")
        return jobs_pb2.Job.FromString(await self._verification.create(name, request.num_steps, call))
