"""Checkpoints: what a job saved of its run, what of it is in the blob store, and proofs that a resume is exact."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.blobs import BlobClient, Progress
from tuneforge.errors import FailedPrecondition, Reason
from tuneforge.job_values import Checkpoint, Job, checkpoint_from_proto, job_from_proto
from tuneforge.v1 import scheduler_pb2 as calls


class Checkpoints:
    """Checkpoints of one project; `client.checkpoints`. They are named `job/20`, or by their whole names."""

    def __init__(self, connections: Connections, project: str, blobs: Callable[[], BlobClient]) -> None:
        self._connections = connections
        self._project = project
        self._blobs = blobs

    def list(self, job: str) -> Iterator[Checkpoint]:
        """Yields the checkpoints of a job, newest first."""
        scheduler = self._connections.scheduler
        request = calls.ListCheckpointsRequest(parent=names.job(self._project, job))
        for page in scheduler.pages(scheduler.stub.ListCheckpoints, request):
            yield from map(checkpoint_from_proto, page.checkpoints)

    def get(self, checkpoint: str) -> Checkpoint:
        """Returns a checkpoint."""
        scheduler = self._connections.scheduler
        request = calls.GetCheckpointRequest(name=names.checkpoint(self._project, checkpoint))
        return checkpoint_from_proto(scheduler.call(scheduler.stub.GetCheckpoint, request))

    def pin(self, checkpoint: str) -> Checkpoint:
        """Keeps a checkpoint's copy in the blob store whatever `checkpointing.keep_last` says.

        Raises:
            FailedPrecondition: It was not copied there.
        """
        scheduler = self._connections.scheduler
        name = names.checkpoint(self._project, checkpoint)
        request = calls.PinCheckpointRequest(name=name, request_id=new_request_id())
        return checkpoint_from_proto(scheduler.call(scheduler.stub.PinCheckpoint, request))

    def unpin(self, checkpoint: str) -> Checkpoint:
        """Lets a pinned checkpoint go when newer ones have taken its place."""
        scheduler = self._connections.scheduler
        name = names.checkpoint(self._project, checkpoint)
        request = calls.UnpinCheckpointRequest(name=name, request_id=new_request_id())
        return checkpoint_from_proto(scheduler.call(scheduler.stub.UnpinCheckpoint, request))

    def delete(self, checkpoint: str) -> Checkpoint:
        """Takes a checkpoint out of the index and the blob store; returns what it was.

        Raises:
            FailedPrecondition: It is pinned, another job begins from it, or its job would go on from it.
        """
        scheduler = self._connections.scheduler
        name = names.checkpoint(self._project, checkpoint)
        request = calls.DeleteCheckpointRequest(name=name, request_id=new_request_id())
        return checkpoint_from_proto(scheduler.call(scheduler.stub.DeleteCheckpoint, request))

    def download(
        self, checkpoint: str, folder: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Checkpoint:
        """Brings the files of a checkpoint into a folder, verified by digest; goes on where an earlier one broke off.

        Raises:
            FailedPrecondition: It is on its node only.
            IntegrityError: Bytes that arrived are not those of the manifest.
            TuneforgeError: There is no such checkpoint, or a service stayed away.
        """
        found = self.get(checkpoint)
        if found.manifest is None:
            raise FailedPrecondition(Reason.WRONG_STATE, f"{found.name} is on its node only, not in the blob store")
        self._blobs().download_folder(found.manifest, Path(folder), progress=progress)
        return found

    def verify_resume(self, checkpoint: str, *, num_steps: int = 0) -> Job:
        """Makes a job that does steps after a checkpoint again and compares every bit; watch it as any job.

        Args:
            checkpoint: In the blob store.
            num_steps: 1 to 32; 0: up to the next checkpoint.

        Raises:
            InvalidArgument: So many steps were not made after it.
            FailedPrecondition: It was not copied to the blob store.
        """
        scheduler = self._connections.scheduler
        request = calls.VerifyResumeRequest(
            name=names.checkpoint(self._project, checkpoint), num_steps=num_steps, request_id=new_request_id()
        )
        return job_from_proto(scheduler.call(scheduler.stub.VerifyResume, request))
