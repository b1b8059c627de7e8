"""What is said of a job beside what to train: retries, how long it stays, whose result it may have."""

from dataclasses import dataclass
from datetime import timedelta

from tuneforge import _wire, durations
from tuneforge.v1 import jobs_pb2 as pb
from tuneforge.v1 import scheduler_pb2 as calls
from tuneforge.values import Word


class Reuse(Word):
    """Which earlier job may stand for a new one that would train the same."""

    UNKNOWN = "UNKNOWN"
    NEVER = "NEVER"
    FINISHED = "FINISHED"
    """One that has succeeded: the new job has its version at once."""
    FINISHED_OR_RUNNING = "FINISHED_OR_RUNNING"
    """Also one that has not ended: the answer is that job itself."""


class FaultBudget(Word):
    """Budgets of faults."""

    UNKNOWN = "UNKNOWN"
    UNSPECIFIED = "UNSPECIFIED"
    """None: the attempt goes on, has succeeded or was stopped."""
    INFRASTRUCTURE = "INFRASTRUCTURE"
    USER = "USER"
    """That of faults of the job's own: its spec, its data, its model."""
    MICRO_BATCH = "MICRO_BATCH"
    """None: memory ran out, and the next attempt computes half as many rows at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a job is tried again; None: as the scheduler does."""

    infrastructure: int | None = None
    """Attempts that may be lost to the infrastructure, at most 100."""
    user: int | None = None
    """Faults of its own after which it is tried again, at most 20; the same one twice in a row ends it."""
    first_delay_s: float | None = None
    """Upper bound of the first wait in seconds, at most 3600; it doubles with each fault."""
    longest_delay_s: float | None = None
    """Cap of that bound in seconds, at most 86400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCount:
    """Faults that a job has had, and those that it may still have."""

    policy: RetryPolicy
    infrastructure_faults: int
    user_faults: int
    infrastructure_left: int
    user_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What is said of a job beside what to train."""

    retry: RetryPolicy | None = None
    ttl: timedelta | None = None
    """It is removed so long after its end; its version stays. None: it stays."""
    reuse: Reuse = Reuse.NEVER


def put_job_options(request: calls.CreateJobRequest, options: JobOptions | None) -> None:
    """Writes options into a request."""
    if options is None:
        return
    if options.retry is not None:
        request.retry.CopyFrom(retry_to_proto(options.retry))
    if options.ttl is not None:
        request.ttl.CopyFrom(durations.from_seconds(options.ttl.total_seconds()))
    request.reuse = calls.Reuse.Value(f"REUSE_{Reuse(options.reuse)}")


def retry_to_proto(policy: RetryPolicy) -> pb.RetryPolicy:
    """Converts a policy to its message."""
    message = pb.RetryPolicy(
        infrastructure=_wire.counted("retry.infrastructure", policy.infrastructure),
        user=_wire.counted("retry.user", policy.user),
    )
    if policy.first_delay_s is not None:
        message.first_delay.CopyFrom(durations.from_seconds(policy.first_delay_s))
    if policy.longest_delay_s is not None:
        message.longest_delay.CopyFrom(durations.from_seconds(policy.longest_delay_s))
    return message


def fault_count_from_proto(message: pb.FaultCount) -> FaultCount:
    """Converts faults and budgets."""
    policy = message.policy
    return FaultCount(
        policy=RetryPolicy(
            infrastructure=policy.infrastructure,
            user=policy.user,
            first_delay_s=durations.to_seconds(policy.first_delay),
            longest_delay_s=durations.to_seconds(policy.longest_delay),
        ),
        infrastructure_faults=message.infrastructure_faults,
        user_faults=message.user_faults,
        infrastructure_left=message.infrastructure_left,
        user_left=message.user_left,
    )
