"""A watch of a job that survives restarts of the scheduler and breaks of the network: every event once, in order.

Whatever ends a stream before the job's end — UNAVAILABLE, a draining server, a reset connection, silence longer than a
few heartbeats — is treated alike: the stream is opened again from the last resume token, after a jittered wait that
starts anew with each message that brings something.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC
from types import TracebackType
from typing import Any, Self

import grpc

from tuneforge._connections import Service
from tuneforge._transport import Backoff, is_retriable, typed_error
from tuneforge.errors import InternalError, InvalidArgument, Reason, TuneforgeError, Unavailable
from tuneforge.events import Event, LogCompacted, event_from_proto
from tuneforge.v1 import jobs_pb2, scheduler_pb2, watching_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub

# What gRPC itself says when a connection dies in the middle of a stream; a service's own INTERNAL carries an ErrorInfo.
BROKEN_STREAM = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a watch behaves."""

    silence_s: float = 45.0
    """A stream that brings nothing, not even a heartbeat (every 10 to 15 seconds), for so long is opened again."""
    give_up_after_s: float = 3600.0
    """Time without any answer after which the watch raises; before its first answer ever it is that of a call."""
    max_batch: int = 100
    """Most events in one message, 1 to 1000."""
    on_break: Callable[[TuneforgeError], None] | None = None
    """Told why, each time that the stream broke and is about to be opened again."""


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
        self._scheduler = scheduler
        self._name = name
        self._on_snapshot = on_snapshot
        self._options = options or WatchOptions()
        self._seq, self._token = _parse_cursor(cursor)
        self._latest_seq = self._seq
        self._compacted = 0
        self._end_state = jobs_pb2.JOB_STATE_UNSPECIFIED
        self._is_closed = False
        self._stream: Any = None
        self._events = self._run()

    @property
    def cursor(self) -> str:
        """Where the watch stands, after the event that came last: a later watch that is given it goes on from there."""
        return f"{self._seq}:{self._token}"

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
        if self._is_closed:
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
        self._is_closed = True
        if self._stream is not None:
            self._stream.cancel()

    def _run(self) -> Iterator[Event]:
        backoff = Backoff(self._scheduler.retry)
        patient = replace(self._scheduler.retry, budget_s=self._options.give_up_after_s)
        is_known = False
        while not self._is_closed:
            try:
                for response in self._open():
                    if not is_known:
                        backoff, is_known = Backoff(patient), True
                    yield from self._take(response)
                    if self.has_ended:
                        return
                    if response.WhichOneof("payload") in {"events", "heartbeat"}:
                        backoff.progress()
                error: TuneforgeError = Unavailable(Reason.DRAINING, f"{self._scheduler.peer} is shutting down")
            except grpc.RpcError as rpc_error:
                if self._is_closed:
                    return
                error = self._resumable(rpc_error)
            finally:
                if self._stream is not None:
                    self._stream.cancel()
            if self._options.on_break is not None:
                self._options.on_break(error)
            backoff.wait_or_raise(error)

    def _open(self) -> Iterator[scheduler_pb2.WatchJobResponse]:
        """Yields the messages of one stream; cancels it when it falls silent."""
        request = scheduler_pb2.WatchJobRequest(
            name=self._name, resume_token=self._token, max_batch=self._options.max_batch
        )
        self._stream = self._scheduler.stub.WatchJob(request)
        watchdog = Watchdog(self._options.silence_s, self._stream.cancel)
        try:
            watchdog.touch()
            for response in self._stream:
                watchdog.pause()
                yield response
                watchdog.touch()
        finally:
            watchdog.stop()

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
        if response.resume_token:
            self._token = response.resume_token

    def _resumable(self, rpc_error: grpc.RpcError) -> TuneforgeError:
        """Returns why the stream broke, or raises when opening it again would not help."""
        error = typed_error(rpc_error, self._scheduler.peer)
        if error.reason == Reason.COMPACTED and self._token:
            self._token = ""  # what is left comes from the beginning, after a message that says what is not
            return error
        code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
        is_bare = not error.request_id and not error.metadata
        if is_retriable(rpc_error) or (is_bare and code in BROKEN_STREAM):
            return error
        raise error from None


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


class Watchdog:
    """Calls `bark` when nothing touches it for a while; a thread of its own, because a read of a stream cannot wait."""

    def __init__(self, silence_s: float, bark: Callable[[], object]) -> None:
        self._silence_s = silence_s
        self._bark = bark
        self._due = math.inf
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="tuneforge-watchdog", daemon=True).start()

    def touch(self) -> None:
        """Starts the time anew."""
        self._due = time.monotonic() + self._silence_s

    def pause(self) -> None:
        """Stops the time: the reader is busy with what came."""
        self._due = math.inf

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(min(self._silence_s, max(self._due - time.monotonic(), 0.001))):
            if time.monotonic() >= self._due:
                self._bark()
                return
