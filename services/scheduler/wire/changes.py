"""Messages of `WatchJobs`."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.jobs import TERMINAL
from services.scheduler.records import Job
from services.scheduler.wire.resources import job_state_to_proto, job_to_proto
from tuneforge.v1 import jobs_pb2, watching_pb2

Message = watching_pb2.WatchJobsResponse
"""One message of a watch of many jobs."""
Change = watching_pb2.JobChange


def snapshot(jobs: Sequence[Job], token: str, *, is_last: bool) -> watching_pb2.WatchJobsResponse:
    """Returns a page of a snapshot."""
    page = watching_pb2.JobsSnapshot(jobs=map(job_to_proto, jobs), is_last=is_last)
    return watching_pb2.WatchJobsResponse(snapshot=page, resume_token=token)


def shown(job: Job, *, is_new: bool, is_merged: bool) -> watching_pb2.JobChange:
    """Returns the change of a job that is to be shown."""
    kind = (
        watching_pb2.JOB_CHANGE_KIND_ENDED
        if job.state in TERMINAL
        else watching_pb2.JOB_CHANGE_KIND_ADDED
        if is_new
        else watching_pb2.JOB_CHANGE_KIND_CHANGED
    )
    return watching_pb2.JobChange(kind=kind, job=job_to_proto(job), is_merged=is_merged)


def outside(job: Job) -> watching_pb2.JobChange:
    """Returns the change of a job that does not match the filter any more."""
    what = jobs_pb2.Job(name=str(job.name), state=job_state_to_proto(job.state))
    return watching_pb2.JobChange(kind=watching_pb2.JOB_CHANGE_KIND_OUTSIDE, job=what)


def changes(told: Sequence[watching_pb2.JobChange], token: str) -> bytes:
    """Returns the message of changes, serialised: it may go to many."""
    response = watching_pb2.WatchJobsResponse(changes=watching_pb2.JobChanges(changes=told), resume_token=token)
    return response.SerializeToString()


def bookmark(token: str) -> watching_pb2.WatchJobsResponse:
    """Returns the message that says that nothing was there to tell."""
    return watching_pb2.WatchJobsResponse(bookmark=watching_pb2.WatchBookmark(), resume_token=token)


def draining(token: str) -> watching_pb2.WatchJobsResponse:
    """Returns the last message of a watch that the server ends for its own sake."""
    end = watching_pb2.WatchEnd(reason=watching_pb2.WATCH_END_REASON_DRAINING)
    return watching_pb2.WatchJobsResponse(end=end, resume_token=token)
