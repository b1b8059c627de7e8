"""What a caller says of a job beside what to train: message -> dataclass; and a policy of retries as it is stored."""

from __future__ import annotations

from services.scheduler.jobs import RetryPolicy
from services.scheduler.lifecycle.options import Options, Reuse
from services.scheduler.records import Job
from tuneforge import durations
from tuneforge.v1 import jobs_pb2, scheduler_pb2

INFRASTRUCTURE_MAX = 100
USER_MAX = 20
FIRST_DELAY_MAX_S = 3600.0
LONGEST_DELAY_MAX_S = 86400.0
TTL_MIN_S = 1.0
TTL_MAX_S = 10 * 366 * 86400.0


def options_of(request: scheduler_pb2.CreateJobRequest) -> Options:
    """Converts what a request says beside its spec; what is wrong in it stands in `problems`."""
    retry, problems = request.retry, []
    budgets = {}
    for name, most in (("infrastructure", INFRASTRUCTURE_MAX), ("user", USER_MAX)):
        value = getattr(retry, name) if retry.HasField(name) else None  # type: ignore[arg-type]
        budgets[name] = value
        if value is not None and value > most:
            problems.append((f"retry.{name}", f"is {value}: use 0 to {most}"))
    delays = {}
    for name, most_s in (("first_delay", FIRST_DELAY_MAX_S), ("longest_delay", LONGEST_DELAY_MAX_S)):
        seconds = durations.to_seconds(getattr(retry, name)) if retry.HasField(name) else None  # type: ignore[arg-type]
        delays[name] = seconds
        if seconds is not None and not 0.0 <= seconds <= most_s:
            problems.append((f"retry.{name}", f"is {seconds:g} s: use 0 to {most_s:g} s"))
    ttl_s = durations.to_seconds(request.ttl) if request.HasField("ttl") else None
    if ttl_s is not None and not TTL_MIN_S <= ttl_s <= TTL_MAX_S:
        problems.append(("ttl", f"is {ttl_s:g} s: use {TTL_MIN_S:g} s to ten years, or leave it out for ever"))
    reuse = scheduler_pb2.Reuse.DESCRIPTOR.values_by_number.get(request.reuse)
    if reuse is None:
        problems.append(("reuse", f"has {request.reuse}: use values of Reuse"))
    word = "UNSPECIFIED" if reuse is None else reuse.name.removeprefix("REUSE_")
    return Options(
        budget=budgets["infrastructure"],
        user_budget=budgets["user"],
        first_delay_s=delays["first_delay"],
        longest_delay_s=delays["longest_delay"],
        ttl_ms=None if ttl_s is None else round(ttl_s * 1000),
        reuse=Reuse.NEVER if word == "UNSPECIFIED" else Reuse(word),
        names_output=bool(request.spec.output.model),
        problems=tuple(problems),
    )


def retry_bytes(policy: RetryPolicy) -> bytes:
    """Returns a policy of retries as it is stored."""
    return _retry_to_proto(policy).SerializeToString()


def retry_policy_of(stored: bytes | None, usual: RetryPolicy) -> RetryPolicy:
    """Returns a policy that was stored; jobs of earlier releases have none, and get the usual one."""
    if stored is None:
        return usual
    message = jobs_pb2.RetryPolicy.FromString(stored)
    return RetryPolicy(
        budget=message.infrastructure,
        user_budget=message.user,
        first_delay_s=durations.to_seconds(message.first_delay),
        longest_delay_s=durations.to_seconds(message.longest_delay),
    )


def fault_count(job: Job) -> jobs_pb2.FaultCount | None:
    """Returns a job's faults and what is left of their budgets; None with jobs of earlier releases."""
    if job.retry is None:
        return None
    policy = jobs_pb2.RetryPolicy.FromString(job.retry)
    return jobs_pb2.FaultCount(
        policy=policy,
        infrastructure_faults=job.faults,
        user_faults=job.user_faults,
        infrastructure_left=max(0, policy.infrastructure - job.faults),
        user_left=max(0, policy.user - job.user_faults),
    )


def _retry_to_proto(policy: RetryPolicy) -> jobs_pb2.RetryPolicy:
    return jobs_pb2.RetryPolicy(
        infrastructure=policy.budget,
        user=policy.user_budget,
        first_delay=durations.from_seconds(policy.first_delay_s),
        longest_delay=durations.from_seconds(policy.longest_delay_s),
    )
