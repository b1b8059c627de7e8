"""What a verb for many jobs has done: dataclass -> message."""

from __future__ import annotations

from dataclasses import dataclass

from tuneforge.errors import Reason
from tuneforge.v1 import scheduler_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a job was left as it is."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What a verb for many jobs has done."""

    matched: int
    changed: int
    names: tuple[str, ...]
    problems: tuple[Problem, ...]


def changed_bytes(changed: Changed) -> bytes:
    """Returns the answer, serialised."""
    problems = [
        scheduler_pb2.JobProblem(name=each.name, reason=Reason(each.reason).number, message=each.message)
        for each in changed.problems
    ]
    answer = scheduler_pb2.ChangedJobs(
        matched=changed.matched, changed=changed.changed, names=changed.names, problems=problems
    )
    return answer.SerializeToString()
