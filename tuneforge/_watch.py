"""A watch of a job that survives restarts of the scheduler and breaks of the network: every event once, in order."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC
from types import TracebackType
from typing import Self

from tuneforge._connections import Service
from tuneforge._resumed_stream import ResumedStream, WatchOptions
from tuneforge.errors import InternalError, InvalidArgument, Reason, TuneforgeError
from tuneforge.events import Event, LogCompacted, event_from_proto
from tuneforge.v1 import jobs_pb2, scheduler_pb2, watching_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub


class JobWatch(Iterator[Event]):
    """Events of one job, from the cursor on, until the job has ended. Close it, or use `with`, to stop earlier."""

    def __init__(
        self,
        scheduler: Service[SchedulerServiceStub],
        name: str,
        on_snapshot: Callable[[jobs_pb2.Job], None],
        *,
        cursor: str = "",
        options: WatchOptions | None = None,
    ) -> None:
        self._name = name
        self._on_snapshot = on_snapshot
        options = options or WatchOptions()
        self._seq, token = _parse_cursor(cursor)
        self._latest_seq = self._seq
        self._compacted = 0
        self._end_state = jobs_pb2.JOB_STATE_UNSPECIFIED
        self._stream: ResumedStream[scheduler_pb2.WatchJobResponse] = ResumedStream(
            scheduler,
            lambda token: scheduler.stub.WatchJob(
                scheduler_pb2.WatchJobRequest(name=name, resume_token=token, max_batch=options.max_batch)
            ),
            token=token,
            options=options,
            is_progress=lambda response: response.WhichOneof("payload") in {"events", "heartbeat"},
            cures=self._begins_anew,
        )
        self._events = self._run()

    @property
    def cursor(self) -> str:
        """Where the watch stands, after the event that came last: a later watch that is given it goes on from there."""
        return f"{self._seq}:{self._stream.token}"

    @property
    def latest_job_seq(self) -> int:
        """Number of the job's newest event, as last heard: how far behind the watch is."""
        return max(self._latest_seq, self._seq)

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended and every event was yielded."""
        return self._end_state != jobs_pb2.JOB_STATE_UNSPECIFIED

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._stream.is_closed:
            raise StopIteration
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch; the job goes on. May be called from another thread."""
        self._stream.close()

    def _run(self) -> Iterator[Event]:
        with closing(self._stream.messages()) as messages:
            for response in messages:
                yield from self._take(response)
                if self.has_ended:
                    return

    def _take(self, response: scheduler_pb2.WatchJobResponse) -> Iterator[Event]:
        self._latest_seq = response.latest_job_seq
        match response.WhichOneof("payload"):
            case "snapshot":
                self._on_snapshot(response.snapshot)
            case "events":
                for message in response.events.events:
                    if message.job_seq <= self._seq:  # sent before the break, or before the cursor was taken
                        continue
                    if message.job_seq > max(self._seq, self._compacted) + 1:
                        text = f"the log of {self._name} has a gap: {self._seq} is followed by {message.job_seq}"
                        raise InternalError(Reason.INTERNAL, text, cure="Report it: events must never be lost.")
                    self._seq = message.job_seq
                    yield event_from_proto(message)
            case "compacted" if response.compacted.through_job_seq > self._compacted:
                self._compacted = response.compacted.through_job_seq
                yield _compacted_event(self._name, self._seq, response.compacted)
            case "end" if response.end.reason == scheduler_pb2.END_REASON_JOB_ENDED:
                self._end_state = response.end.state

    def _begins_anew(self, error: TuneforgeError) -> bool:
        """Goes back to the beginning of a log that was thinned out: what is left comes after a message that says so."""
        if error.reason != Reason.COMPACTED or not self._stream.token:
            return False
        self._stream.token = ""
        return True


def _compacted_event(job: str, job_seq: int, message: watching_pb2.LogCompaction) -> Event:
    """Returns the mark that stands where events are missing from here on; it is no event of the log itself."""
    return Event(
        job=job,
        job_seq=job_seq,
        attempt=0,
        node_rank=0,
        seq=0,
        time=message.time.ToDatetime(UTC),
        kind="compacted",
        payload=LogCompacted(
            through_job_seq=message.through_job_seq, removed_events=message.removed_events, head=message.head.hex()
        ),
    )


def _parse_cursor(cursor: str) -> tuple[int, str]:
    number, _, token = cursor.partition(":")
    if not cursor:
        return 0, ""
    if not number.isdigit():
        message = f"{cursor[:100]!r} is no cursor of a watch"
        raise InvalidArgument(Reason.INVALID_RESUME_TOKEN, message, cure="Give `JobWatch.cursor`, or none.")
    return int(number), token
