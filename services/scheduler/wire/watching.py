"""Messages of `WatchJob`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.scheduler.jobs import JobState
from services.scheduler.records import Job
from services.scheduler.resume import write_token
from services.scheduler.watching.records import Chunk, Compaction
from services.scheduler.wire.resources import job_state_to_proto, job_to_proto
from services.scheduler.wire.times import optional_timestamp
from tuneforge.v1 import events_pb2, scheduler_pb2, watching_pb2

Message = scheduler_pb2.WatchJobResponse
"""One message of a watch."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose tokens are written: a job, and what the reader was told of its log."""

    uid: int
    compacted: int = 0
    """Events up to this one were thinned out."""

    def token(self, cursor: int) -> str:
        """Returns the token of a reader who has everything up to a number."""
        return write_token(self.uid, cursor, self.compacted)


def snapshot(job: Job, reader: Reader, cursor: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the first message of a watch that goes on after `cursor`."""
    return scheduler_pb2.WatchJobResponse(
        snapshot=job_to_proto(job), resume_token=reader.token(cursor), latest_job_seq=job.latest_seq
    )


def events(
    reader: Reader, chunks: Sequence[Chunk], window: tuple[int, int], latest_seq: int
) -> scheduler_pb2.WatchJobResponse:
    """Returns the events of consecutive chunks inside a window.

    Args:
        reader: Whose tokens are written.
        chunks: Chunks without a gap that reach over the window's beginning.
        window: Number of the last event that the watcher has, and of the last one that it is to get now.
        latest_seq: Number of the job's newest event.
    """
    after, last = window
    response = scheduler_pb2.WatchJobResponse(latest_job_seq=latest_seq)
    batch = response.events
    for chunk in chunks:
        if after < chunk.first_seq and chunk.last_seq <= last:
            batch.MergeFromString(chunk.payload)
        else:
            whole = events_pb2.EventBatch.FromString(chunk.payload)
            batch.events.extend(event for event in whole.events if after < event.job_seq <= last)
            start, end = max(0, after + 1 - chunk.first_seq), last + 1 - chunk.first_seq
            batch.marks.extend(whole.marks[start:end])
    response.resume_token = reader.token(min(last, chunks[-1].last_seq))
    return response


def left_events(
    reader: Reader, chunk: Chunk, cursor: int, max_batch: int, latest_seq: int
) -> list[tuple[scheduler_pb2.WatchJobResponse, int]]:
    """Returns what is left of a thinned-out chunk after a cursor, as messages, each with the cursor after it."""
    whole = events_pb2.EventBatch.FromString(chunk.payload)
    left = [index for index, event in enumerate(whole.events) if event.job_seq > cursor]
    messages = []
    for start in range(0, len(left), max_batch):
        part = left[start : start + max_batch]
        is_last = start + max_batch >= len(left)
        after = chunk.last_seq if is_last else whole.events[part[-1]].job_seq
        response = scheduler_pb2.WatchJobResponse(latest_job_seq=latest_seq, resume_token=reader.token(after))
        response.events.events.extend(whole.events[index] for index in part)
        response.events.marks.extend(whole.marks[index] for index in part)
        messages.append((response, after))
    return messages


def compacted(reader: Reader, compaction: Compaction, cursor: int, latest_seq: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the message that says that events were taken out."""
    told = watching_pb2.LogCompaction(
        through_job_seq=compaction.through_seq,
        removed_events=compaction.removed,
        time=optional_timestamp(compaction.time_ms),
        head=compaction.head,
    )
    return scheduler_pb2.WatchJobResponse(compacted=told, resume_token=reader.token(cursor), latest_job_seq=latest_seq)


def heartbeat(reader: Reader, cursor: int, latest_seq: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the message that says that nothing happened."""
    return scheduler_pb2.WatchJobResponse(
        heartbeat=scheduler_pb2.WatchHeartbeat(), resume_token=reader.token(cursor), latest_job_seq=latest_seq
    )


def job_ended(reader: Reader, cursor: int, state: JobState) -> scheduler_pb2.WatchJobResponse:
    """Returns the last message of a watch of a job that has ended."""
    end = scheduler_pb2.EndOfStream(reason=scheduler_pb2.END_REASON_JOB_ENDED, state=job_state_to_proto(state))
    return scheduler_pb2.WatchJobResponse(end=end, resume_token=reader.token(cursor), latest_job_seq=cursor)


def draining(reader: Reader, cursor: int, latest_seq: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the last message of a watch that the server ends for its own sake."""
    end = scheduler_pb2.EndOfStream(reason=scheduler_pb2.END_REASON_DRAINING)
    return scheduler_pb2.WatchJobResponse(end=end, resume_token=reader.token(cursor), latest_job_seq=latest_seq)
