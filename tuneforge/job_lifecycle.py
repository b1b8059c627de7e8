"""A job's later life - run again, remove - and verbs for many jobs at once; `client.jobs` has these methods."""

from dataclasses import dataclass
from typing import Any

from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.errors import Reason
from tuneforge.job_filters import JobFilter, filter_to_proto
from tuneforge.job_values import Job, job_from_proto
from tuneforge.v1 import scheduler_pb2 as calls


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProblem:
    """Why a job was left as it is."""

    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedJobs:
    """What a verb for many jobs has done, or would do."""

    matched: int
    """Jobs that the filter means."""
    changed: int
    names: tuple[str, ...]
    """Of those that were changed, the first 1000, oldest first."""
    problems: tuple[JobProblem, ...]
    """Of those that were left as they are, the first 100, oldest first."""


class JobLifecycle:
    """Calls of one project's jobs that are not about their runs."""

    _connections: Connections
    _project: str

    def rerun(self, job: str, *, job_id: str | None = None, repin: bool = False) -> Job:
        """Makes a new job with the pinned spec of one that has ended, and returns it.

        Args:
            job: Id or name.
            job_id: Id of the new job; None lets the server choose.
            repin: Take the newest versions of its data sets.

        Raises:
            FailedPrecondition: It has not ended.
            InvalidArgument: What it names is gone, or it is a verification.
        """
        scheduler = self._connections.scheduler
        request = calls.RerunJobRequest(
            name=names.job(self._project, job), job_id=job_id or "", repin=repin, request_id=new_request_id()
        )
        return job_from_proto(scheduler.call(scheduler.stub.RerunJob, request))

    def delete(self, job: str) -> Job:
        """Removes a job that has ended, by id or name, with its events and checkpoints; returns what it was.

        Its version stays, with all its lineage; its name is never given again.

        Raises:
            FailedPrecondition: It has not ended, or something needs it; the message says what.
        """
        scheduler = self._connections.scheduler
        request = calls.DeleteJobRequest(name=names.job(self._project, job), request_id=new_request_id())
        return job_from_proto(scheduler.call(scheduler.stub.DeleteJob, request))

    def cancel_all(self, where: JobFilter | None, *, reason: str = "", validate_only: bool = False) -> ChangedJobs:
        """Cancels all jobs that a filter means; those that cannot be cancelled are left as they are and named.

        Args:
            where: Which jobs; None: every job of the project.
            reason: Why, for the log.
            validate_only: Say which jobs would be cancelled, and change nothing.
        """
        stub = self._connections.scheduler.stub
        request = calls.CancelJobsRequest(**self._bulk(where, validate_only=validate_only), reason=reason)
        return self._change(stub.CancelJobs, request)

    def pause_all(self, where: JobFilter | None, *, reason: str = "", validate_only: bool = False) -> ChangedJobs:
        """Pauses all jobs that a filter means; see `cancel_all`."""
        stub = self._connections.scheduler.stub
        request = calls.PauseJobsRequest(**self._bulk(where, validate_only=validate_only), reason=reason)
        return self._change(stub.PauseJobs, request)

    def resume_all(self, where: JobFilter | None, *, validate_only: bool = False) -> ChangedJobs:
        """Resumes all paused jobs that a filter means; see `cancel_all`."""
        stub = self._connections.scheduler.stub
        return self._change(stub.ResumeJobs, calls.ResumeJobsRequest(**self._bulk(where, validate_only=validate_only)))

    def delete_all(self, where: JobFilter | None, *, validate_only: bool = False) -> ChangedJobs:
        """Removes all ended jobs that a filter means, as `delete` does each; see `cancel_all`."""
        stub = self._connections.scheduler.stub
        return self._change(stub.DeleteJobs, calls.DeleteJobsRequest(**self._bulk(where, validate_only=validate_only)))

    def _bulk(self, where: JobFilter | None, *, validate_only: bool) -> dict[str, Any]:
        return {
            "parent": names.parent(self._project),
            "filter": filter_to_proto(where, self._project) if where is not None else None,
            "all": where is None,
            "validate_only": validate_only,
            "request_id": new_request_id(),
        }

    def _change(self, method: Any, request: Any) -> ChangedJobs:
        answer: calls.ChangedJobs = self._connections.scheduler.call(method, request)
        return ChangedJobs(
            matched=answer.matched,
            changed=answer.changed,
            names=tuple(answer.names),
            problems=tuple(
                JobProblem(name=each.name, reason=Reason.from_number(each.reason), message=each.message)
                for each in answer.problems
            ),
        )
