"""Streams of a project's jobs; `Jobs` takes them over."""

from collections.abc import Callable, Iterator, Sequence

import grpc

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._resumed_stream import WatchOptions
from tuneforge._transport import Backoff, is_retriable, typed_error
from tuneforge.errors import Reason, TuneforgeError, Unavailable
from tuneforge.job_changes import JobsWatch
from tuneforge.job_filters import JobFilter, filter_to_proto
from tuneforge.v1 import events_pb2, watching_pb2
from tuneforge.v1 import scheduler_pb2 as calls

ALL_PROJECTS = "projects/-"
"""Parent that stands for every project that the caller may use."""


class JobStreams:
    """What is streamed of the jobs of one project."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def watch_all(
        self,
        where: JobFilter | None = None,
        *,
        all_projects: bool = False,
        skip_snapshot: bool = False,
        cursor: str = "",
        options: WatchOptions | None = None,
    ) -> JobsWatch:
        """Yields the project's jobs as they are, then each one that is added, changes or ends, until it is closed.

        Args:
            where: Which jobs are meant; None: all. One that matches no more is told as OUTSIDE.
            all_projects: Of every project that the caller may use.
            skip_snapshot: Begin with what happens from now on.
            cursor: `JobsWatch.cursor` of an earlier watch with the same filter: go on after it.
            options: Patience and what to do at a break.

        Raises:
            TuneforgeError: While iterating: the cursor is not one of this watch, or nobody answers for too long.
        """
        parent = ALL_PROJECTS if all_projects else names.parent(self._project)
        request = watching_pb2.WatchJobsRequest(
            parent=parent,
            filter=filter_to_proto(where, self._project) if where is not None else None,
            skip_snapshot=skip_snapshot,
        )
        return JobsWatch(self._connections.scheduler, request, cursor=cursor, options=options)

    def raw_batches(
        self, job: str, on_compacted: Callable[[int, bytes], None] | None = None
    ) -> Iterator[tuple[Sequence[events_pb2.Event], Sequence[int]]]:
        """Yields the events of a job as they came over the wire, each batch with its marks; see `tuneforge.records`.

        Nothing is checked, so that a log that was tampered with can be read to its end.

        Args:
            job: Id or name.
            on_compacted: Told, before the first batch, up to which event the log was thinned out and the record's head
                after it.
        """
        scheduler = self._connections.scheduler
        request = calls.WatchJobRequest(name=names.job(self._project, job), max_batch=1000)
        backoff = Backoff(scheduler.retry)
        while True:
            stream = scheduler.stub.WatchJob(request)
            try:
                for response in stream:
                    request.resume_token = response.resume_token or request.resume_token
                    match response.WhichOneof("payload"):
                        case "events":
                            backoff.progress()
                            yield response.events.events, response.events.marks
                        case "compacted" if on_compacted is not None:
                            told = response.compacted
                            on_compacted(told.through_job_seq, told.head)
                        case "end" if response.end.reason == calls.END_REASON_JOB_ENDED:
                            return
                broken: TuneforgeError = Unavailable(Reason.DRAINING, f"{scheduler.peer} is shutting down")
            except grpc.RpcError as error:
                broken = typed_error(error, scheduler.peer)
                if not is_retriable(error):
                    raise broken from None
            finally:
                stream.cancel()
            backoff.wait_or_raise(broken)
