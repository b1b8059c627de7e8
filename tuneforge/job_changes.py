"""Changes of many jobs, as they happen: `client.jobs.watch_all`."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tuneforge import _wire
from tuneforge._connections import Service
from tuneforge._resumed_stream import ResumedStream, WatchOptions
from tuneforge.job_values import Job, JobState, job_from_proto
from tuneforge.v1 import jobs_pb2, watching_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub
from tuneforge.values import Word


class JobChangeKind(Word):
    """What a change is to the reader."""

    UNKNOWN = "UNKNOWN"
    PRESENT = "PRESENT"
    """The job was there when the watch began."""
    ADDED = "ADDED"
    CHANGED = "CHANGED"
    ENDED = "ENDED"
    OUTSIDE = "OUTSIDE"
    """It does not match the filter now, or was removed: whoever shows it drops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChange:
    """One job after a change."""

    kind: JobChangeKind
    name: str
    """`projects/{project}/jobs/{job}`."""
    state: JobState
    job: Job | None
    """The job as it is now; None with OUTSIDE."""
    is_merged: bool = False
    """It changed more than once since it was told last, and only the newest state is told: the reader was slower."""


class JobsWatch(Iterator[JobChange]):
    """Jobs as they are and as they change, for ever. Close it, or use `with`, to stop.

    Whatever breaks is opened again where it stood: no change is missed, and none comes twice.
    """

    def __init__(
        self,
        scheduler: Service[SchedulerServiceStub],
        request: watching_pb2.WatchJobsRequest,
        *,
        cursor: str = "",
        options: WatchOptions | None = None,
    ) -> None:
        def open_at(token: str) -> object:
            request.resume_token = token
            return scheduler.stub.WatchJobs(request)

        self._stream: ResumedStream[watching_pb2.WatchJobsResponse] = ResumedStream(
            scheduler, open_at, token=cursor, options=options
        )
        self.has_snapshot = bool(cursor) or request.skip_snapshot
        """Whether all jobs that were there at the beginning have been told."""
        self._changes = self._run()

    @property
    def cursor(self) -> str:
        """Where the watch stands, after the message that was told to its end: a later watch goes on from there."""
        return self._stream.token

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> JobChange:
        if self._stream.is_closed:
            raise StopIteration
        return next(self._changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch. May be called from another thread."""
        self._stream.close()

    def _run(self) -> Iterator[JobChange]:
        for message in self._stream.messages():
            self.has_snapshot |= message.snapshot.is_last
            for job in message.snapshot.jobs:
                yield _present(job)
            for change in message.changes.changes:
                yield _change(change)


def _present(message: jobs_pb2.Job) -> JobChange:
    job = job_from_proto(message)
    return JobChange(kind=JobChangeKind.PRESENT, name=job.name, state=job.state, job=job)


def _change(message: watching_pb2.JobChange) -> JobChange:
    kind = _wire.word(JobChangeKind, watching_pb2.JobChangeKind.DESCRIPTOR, message.kind)
    return JobChange(
        kind=kind,
        name=message.job.name,
        state=_wire.word(JobState, jobs_pb2.JobState.DESCRIPTOR, message.job.state),
        job=None if kind is JobChangeKind.OUTSIDE else job_from_proto(message.job),
        is_merged=message.is_merged,
    )
