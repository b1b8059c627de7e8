"""Poison jobs: which harm the scheduler or its nodes when they are taken up; they fail with the evidence. Pure rules.

Four ways to notice one: its row cannot be read; deciding about it raises; carrying out what was decided for it raises
three times in a row; or it was being taken up at each of three deaths of the scheduler. And a fifth: the workers or
nodes that it was started on were lost before a first step, on three nodes one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from google.protobuf.message import DecodeError

from services.scheduler.actions import Action
from services.scheduler.observation import Observation

STRIKES = 3
"""So many times in a row, or deaths of the scheduler: once may be chance, three times over the same job is not."""
OF_THE_JOB = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError, DecodeError,
)  # fmt: skip
"""What code raises that meets data it cannot use; a full disk or a database that is away says nothing of a job."""


def decide_for_each(
    decide: Callable[[Observation], list[Action]], seen: Observation
) -> tuple[list[Action], dict[int, BaseException]]:
    """Decides, leaving out jobs that make the decision raise; returns what is due, and those jobs with what was raised.

    Nothing is done twice when nothing is wrong. Else halves of the queue are tried until the jobs are found.

    Raises:
        Exception: what no job is the cause of.
    """
    broken: dict[int, BaseException] = {}
    while True:
        try:
            return decide(without(seen, broken)), broken
        except OF_THE_JOB as error:
            found = _culprit(decide, without(seen, broken), error)
            if found is None:
                raise
            broken[found[0]] = found[1]


def without(seen: Observation, left_out: Iterable[int]) -> Observation:
    """Returns an observation as if some jobs were not there."""
    numbers = set(left_out)
    if not numbers:
        return seen
    return replace(
        seen,
        jobs=tuple(job for job in seen.jobs if job.number not in numbers),
        attempts=tuple(each for each in seen.attempts if each.job not in numbers),
        publications=tuple(each for each in seen.publications if each.job not in numbers),
        spent=tuple(each for each in seen.spent if each.job not in numbers),
    )


def _culprit(
    decide: Callable[[Observation], list[Action]], seen: Observation, raised: BaseException
) -> tuple[int, BaseException] | None:
    """Returns a job without whose like the decision does not raise, or None when it raises without any."""
    numbers = [job.number for job in seen.jobs]
    everything = set(numbers)
    while len(numbers) > 1:
        half = numbers[: len(numbers) // 2]
        error = _raised(decide, without(seen, everything - set(half)))
        if error is None:
            half = numbers[len(numbers) // 2 :]
            error = _raised(decide, without(seen, everything - set(half)))
        if error is None:
            return None  # only together do they raise
        numbers, raised = half, error
    if not numbers or _raised(decide, without(seen, everything)) is not None:
        return None
    return numbers[0], raised


def _raised(decide: Callable[[Observation], list[Action]], seen: Observation) -> BaseException | None:
    try:
        decide(seen)
    except OF_THE_JOB as error:
        return error
    return None
