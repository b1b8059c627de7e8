"""Jobs: fine-tuning runs from the request to the published version."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tuneforge import _short_names as names
from tuneforge._job_requests import create_request, put_options
from tuneforge._job_streams import JobStreams
from tuneforge._resumed_stream import WatchOptions
from tuneforge._spec_input import SpecInput
from tuneforge._transport import new_request_id
from tuneforge._watch import JobWatch
from tuneforge.errors import DeadlineExceeded, JobFailed, Reason, TuneforgeError
from tuneforge.explanation_values import JobExplanation
from tuneforge.foresight import JobForesight
from tuneforge.job_filters import JobFilter, JobOrder, filter_to_proto, order_to_proto
from tuneforge.job_lifecycle import JobLifecycle
from tuneforge.job_options import JobOptions, put_job_options
from tuneforge.job_values import (
    Attempt,
    Checkpoint,
    Job,
    JobState,
    WorkLedger,
    attempt_from_proto,
    checkpoint_from_proto,
    job_from_proto,
    work_ledger_from_proto,
)
from tuneforge.queue_values import Budget, budget_to_proto
from tuneforge.specs.scheduling import Scheduling
from tuneforge.v1 import jobs_pb2 as pb
from tuneforge.v1 import scheduler_pb2 as calls

if TYPE_CHECKING:
    from tuneforge.exports.run import Export

_POLL_MAX_S = 2.0


class JobCancelled(TuneforgeError):
    """The job was cancelled, so that it has no result."""


class JobHandle:
    """A job at the scheduler: `job` is how it was when it was last read."""

    def __init__(self, jobs: "Jobs", job: Job) -> None:
        self._jobs = jobs
        self._job = job

    @property
    def job(self) -> Job:
        """The job as it was when it was last read; `refresh` reads it again."""
        return self._job

    @property
    def name(self) -> str:
        """`projects/{project}/jobs/{job}`."""
        return self._job.name

    @property
    def id(self) -> str:
        """Last part of the name."""
        return self._job.id

    @property
    def state(self) -> JobState:
        """Its state when it was last read."""
        return self._job.state

    def __repr__(self) -> str:
        return f"<JobHandle {self.name} {self.state}>"

    def refresh(self) -> Job:
        """Reads the job again and returns it."""
        self._job = self._jobs.read(self.name)
        return self._job

    def watch(self, *, cursor: str = "", options: WatchOptions | None = None) -> JobWatch:
        """Yields every event of the job once and in order, from the first one until the job has ended.

        Restarts of the scheduler, the trainer and the network are survived; the iterator waits meanwhile.

        Args:
            cursor: `JobWatch.cursor` of an earlier watch, also of another process: go on after it.
            options: Patience and what to do at a break.

        Raises:
            TuneforgeError: While iterating: the job does not exist, the cursor is not one of this job, the scheduler
                did not answer for longer than `options.give_up_after_s`.
        """
        return self._jobs.watch(self.name, cursor=cursor, options=options, on_snapshot=self._seen)

    def result(self, timeout_s: float | None = None) -> Job:
        """Waits for the job's end and returns it; `version` names what it published.

        Args:
            timeout_s: How long to wait in seconds; None waits for ever. The job itself goes on.

        Raises:
            JobFailed: It failed; the message and the cure are the failure's.
            JobCancelled: It was cancelled.
            DeadlineExceeded: It has not ended in time.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        delay_s = 0.1
        while not self.refresh().state.is_terminal:
            left_s = delay_s if give_up_at is None else min(delay_s, give_up_at - time.monotonic())
            if left_s <= 0:
                message = f"{self.name} is {self.state} after {timeout_s:g} s"
                raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, message, cure="Wait longer: the job itself goes on.")
            time.sleep(left_s)
            delay_s = min(delay_s * 1.5, _POLL_MAX_S)
        return _succeeded(self._job)

    def explain(self) -> JobExplanation:
        """Returns why the job is in its state and what comes next; see `Jobs.explain`."""
        return self._jobs.explain(self.name)

    def cancel(self, reason: str = "") -> Job:
        """Cancels the job and returns it: CANCELLED, or CANCELLING until its device is free.

        Raises:
            FailedPrecondition: It is publishing or has ended.
        """
        self._job = self._jobs.cancel(self.name, reason=reason)
        return self._job

    def pause(self, reason: str = "") -> Job:
        """Pauses the job and returns it: PAUSED, or PAUSING until its attempt has saved its state and left its device.

        Raises:
            FailedPrecondition: It waits for another job, is being cancelled or published, or has ended.
        """
        self._job = self._jobs.pause(self.name, reason=reason)
        return self._job

    def resume(self, *, budget: Budget | None = None) -> Job:
        """Queues the paused job again and returns it; it goes on from where it was paused.

        Args:
            budget: What it may spend from now on, what it has spent included; `Budget()` takes the limit away, None
                leaves it. It is set for a job too that is queued or runs.

        Raises:
            FailedPrecondition: It is still being paused, is being cancelled or published, or has ended; or its budget
                is spent, or that of its project.
        """
        self._job = self._jobs.resume(self.name, budget=budget)
        return self._job

    def export(self, target: "Export", *, follow: bool = False) -> str:
        """Puts its figures into another tool; returns where they are.

        One point a figure and step, that of the newest attempt. An export that is repeated adds nothing.

        Args:
            target: `tuneforge.exports.tensorboard.TensorBoardExport` or `tuneforge.exports.mlflow.MlflowExport`.
            follow: Stay until the job has ended.
        """
        from tuneforge.exports.run import export_job

        return export_job(self._jobs, self.name, target, follow=follow)

    def attempts(self) -> Iterator[Attempt]:
        """Yields its attempts, newest first."""
        return self._jobs.attempts(self.name)

    def checkpoints(self) -> Iterator[Checkpoint]:
        """Yields its checkpoints, newest first."""
        return self._jobs.checkpoints(self.name)

    def _seen(self, job: Job) -> None:
        self._job = job


class Jobs(JobStreams, JobForesight, JobLifecycle):
    """Jobs of one project; `client.jobs`."""

    def create(
        self,
        spec: SpecInput,
        *,
        job_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        from_checkpoint: str | None = None,
        budget: Budget | None = None,
        scheduling: Scheduling | None = None,
        options: JobOptions | None = None,
    ) -> JobHandle:
        """Queues a job.

        Args:
            spec: A `TrainingSpec`, its JSON form as a dictionary, or the path of a JSON file. Short names of models
                (`id/3`, `id@alias`), data sets (`id`, `id/3`) and jobs are made whole.
            job_id: 1 to 63 of `a-z 0-9 -`, beginning with a letter; None lets the server choose.
            labels: At most 64, keys and values at most 63 characters.
            from_checkpoint: A checkpoint in the blob store to begin from (`job/20`); what the spec leaves out is as in
                that job, and what its state depends on cannot be changed.
            budget: What it may spend; when it is spent, the job saves its state and is paused. `job.warnings` says
                where it is less than what is predicted.
            scheduling: When and where it may run, and before whom; None: class NORMAL, at once, anywhere.
            options: How often it is tried again, how long it stays, whose result it may have.

        Raises:
            InvalidArgument: Fields of the spec are wrong; `fields` lists all of them.
            AlreadyExists: There is a job with this id.
            FailedPrecondition: No known node could ever hold it, or its project's quota; the message says by how much.
            ResourceExhausted: As many jobs of the project wait as its quota allows.
        """
        request = create_request(self._project, spec, job_id, labels, from_checkpoint)
        put_options(request, budget, scheduling)
        put_job_options(request, options)
        return JobHandle(self, self._create(request))

    def validate(
        self,
        spec: SpecInput,
        *,
        job_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        from_checkpoint: str | None = None,
        budget: Budget | None = None,
        scheduling: Scheduling | None = None,
        options: JobOptions | None = None,
    ) -> Job:
        """Checks a spec as `create` does and returns the job as it would be; nothing is stored."""
        request = create_request(self._project, spec, job_id, labels, from_checkpoint)
        put_options(request, budget, scheduling)
        put_job_options(request, options)
        request.validate_only = True
        return self._create(request)

    def ledger(self) -> WorkLedger:
        """Returns what the devices of the project's jobs were used for: held, lost and saved device-seconds."""
        scheduler = self._connections.scheduler
        request = calls.GetWorkLedgerRequest(parent=names.parent(self._project))
        return work_ledger_from_proto(scheduler.call(scheduler.stub.GetWorkLedger, request))

    def get(self, job: str) -> JobHandle:
        """Returns a job by id or name."""
        return JobHandle(self, self.read(job))

    def read(self, job: str) -> Job:
        """Returns a job, without a handle, by id or name."""
        scheduler = self._connections.scheduler
        return job_from_proto(
            scheduler.call(scheduler.stub.GetJob, calls.GetJobRequest(name=names.job(self._project, job)))
        )

    def list(
        self, where: JobFilter | None = None, *, states: Sequence[JobState] = (), order: JobOrder = JobOrder.NEWEST
    ) -> Iterator[Job]:
        """Yields the project's jobs, newest first.

        Args:
            where: Only these jobs; None: all.
            states: Only jobs in these states; empty: all.
            order: Which comes first.
        """
        scheduler = self._connections.scheduler
        request = calls.ListJobsRequest(
            parent=names.parent(self._project),
            states=[pb.JobState.Value(f"JOB_STATE_{JobState(state)}") for state in states],
            filter=filter_to_proto(where, self._project) if where is not None else None,
            order=order_to_proto(order),
        )
        for page in scheduler.pages(scheduler.stub.ListJobs, request):
            yield from map(job_from_proto, page.jobs)

    def cancel(self, job: str, *, reason: str = "") -> Job:
        """Cancels a job by id or name; see `JobHandle.cancel`."""
        scheduler = self._connections.scheduler
        request = calls.CancelJobRequest(name=names.job(self._project, job), reason=reason, request_id=new_request_id())
        return job_from_proto(scheduler.call(scheduler.stub.CancelJob, request))

    def pause(self, job: str, *, reason: str = "") -> Job:
        """Pauses a job by id or name; see `JobHandle.pause`."""
        scheduler = self._connections.scheduler
        request = calls.PauseJobRequest(name=names.job(self._project, job), reason=reason, request_id=new_request_id())
        return job_from_proto(scheduler.call(scheduler.stub.PauseJob, request))

    def resume(self, job: str, *, budget: Budget | None = None) -> Job:
        """Resumes a job by id or name; see `JobHandle.resume`."""
        scheduler = self._connections.scheduler
        name = names.job(self._project, job)
        request = calls.ResumeJobRequest(name=name, request_id=new_request_id(), budget=budget_to_proto(budget))
        return job_from_proto(scheduler.call(scheduler.stub.ResumeJob, request))

    def watch(
        self,
        job: str,
        *,
        cursor: str = "",
        options: WatchOptions | None = None,
        on_snapshot: Callable[[Job], None] | None = None,
    ) -> JobWatch:
        """Yields the events of a job by id or name; see `JobHandle.watch`.

        Args:
            job: Id or name.
            cursor: Where an earlier watch stood.
            options: Patience and what to do at a break.
            on_snapshot: Given the job each time that the stream is opened.
        """

        def seen(message: pb.Job) -> None:
            if on_snapshot is not None:
                on_snapshot(job_from_proto(message))

        name = names.job(self._project, job)
        return JobWatch(self._connections.scheduler, name, seen, cursor=cursor, options=options)

    def attempts(self, job: str) -> Iterator[Attempt]:
        """Yields the attempts of a job, newest first."""
        scheduler = self._connections.scheduler
        request = calls.ListAttemptsRequest(parent=names.job(self._project, job))
        for page in scheduler.pages(scheduler.stub.ListAttempts, request):
            yield from map(attempt_from_proto, page.attempts)

    def checkpoints(self, job: str) -> Iterator[Checkpoint]:
        """Yields the checkpoints of a job, newest first."""
        scheduler = self._connections.scheduler
        request = calls.ListCheckpointsRequest(parent=names.job(self._project, job))
        for page in scheduler.pages(scheduler.stub.ListCheckpoints, request):
            yield from map(checkpoint_from_proto, page.checkpoints)

    def _create(self, request: calls.CreateJobRequest) -> Job:
        scheduler = self._connections.scheduler
        return job_from_proto(scheduler.call(scheduler.stub.CreateJob, request))


def _succeeded(job: Job) -> Job:
    """Returns a job that has succeeded, raises for one that has ended otherwise."""
    if job.state is JobState.SUCCEEDED:
        return job
    if job.state is JobState.CANCELLED:
        why = f": {job.last_change.message}" if job.last_change and job.last_change.message else ""
        raise JobCancelled("CANCELLED", f"{job.name} was cancelled{why}", cure="Submit it again if it is still wanted.")
    if job.failure is None:
        raise JobFailed(Reason.INTERNAL, f"{job.name} failed without saying why")
    message = f"{job.name} failed: {job.failure.message}"
    raise JobFailed(job.failure.reason, message, cure=job.failure.cure, metadata=job.failure.metadata)


__all__ = ["JobCancelled", "JobHandle", "JobWatch", "Jobs", "WatchOptions"]
