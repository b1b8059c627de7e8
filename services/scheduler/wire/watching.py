"""Messages of `WatchJob`."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.jobs import JobState
from services.scheduler.records import Job
from services.scheduler.resume import write_token
from services.scheduler.watching.records import Chunk
from services.scheduler.wire.resources import job_state_to_proto, job_to_proto
from tuneforge.v1 import events_pb2, scheduler_pb2

Message = scheduler_pb2.WatchJobResponse
"""One message of a watch."""


def snapshot(job: Job, cursor: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the first message of a watch that goes on after `cursor`."""
    return scheduler_pb2.WatchJobResponse(
        snapshot=job_to_proto(job), resume_token=write_token(job.uid, cursor), latest_job_seq=job.latest_seq
    )


def events(
    uid: int, chunks: Sequence[Chunk], window: tuple[int, int], latest_seq: int
) -> scheduler_pb2.WatchJobResponse:
    """Returns the events of consecutive chunks inside a window.

    Args:
        uid: Identity of the job.
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
    response.resume_token = write_token(uid, min(last, chunks[-1].last_seq))
    return response


def heartbeat(uid: int, cursor: int, latest_seq: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the message that says that nothing happened."""
    return scheduler_pb2.WatchJobResponse(
        heartbeat=scheduler_pb2.WatchHeartbeat(), resume_token=write_token(uid, cursor), latest_job_seq=latest_seq
    )


def job_ended(uid: int, cursor: int, state: JobState) -> scheduler_pb2.WatchJobResponse:
    """Returns the last message of a watch of a job that has ended."""
    end = scheduler_pb2.EndOfStream(reason=scheduler_pb2.END_REASON_JOB_ENDED, state=job_state_to_proto(state))
    return scheduler_pb2.WatchJobResponse(end=end, resume_token=write_token(uid, cursor), latest_job_seq=cursor)


def draining(uid: int, cursor: int, latest_seq: int) -> scheduler_pb2.WatchJobResponse:
    """Returns the last message of a watch that the server ends for its own sake."""
    end = scheduler_pb2.EndOfStream(reason=scheduler_pb2.END_REASON_DRAINING)
    return scheduler_pb2.WatchJobResponse(end=end, resume_token=write_token(uid, cursor), latest_job_seq=latest_seq)
