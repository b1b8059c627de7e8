"""Which jobs a caller means: message -> dataclass, with everything that is wrong named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from services.grpckit.errors import FieldViolation, invalid_fields
from services.scheduler.jobs import JobState
from services.scheduler.lifecycle.filters import JobFilter, JobOrder
from services.scheduler.wire.resources import job_state_from_proto
from services.scheduler.wire.scheduling import PRIORITIES
from services.scheduler.wire.times import milliseconds
from tuneforge.names import DatasetName, DatasetVersionName, InvalidName, ModelName, ModelVersionName, SweepName
from tuneforge.specs.scheduling import priority_of
from tuneforge.v1 import jobs_pb2, scheduler_pb2

SEARCH_LENGTH_MAX = 256
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_TIMES = ("created_from", "created_before", "ended_from", "ended_before")
_NAMES: dict[str, tuple[str, tuple[Callable[[str], object], ...]]] = {
    "output_model": ("a model", (ModelName.parse,)),
    "base": ("a model or a version of one", (ModelName.parse, ModelVersionName.parse)),
    "sweep": ("a sweep", (SweepName.parse,)),
    "dataset": ("a data set or a version of one", (DatasetName.parse, DatasetVersionName.parse)),
}


def filter_of(message: jobs_pb2.JobFilter, field: str = "filter") -> JobFilter:
    """Converts a filter.

    Args:
        message: As sent.
        field: Field of the request that holds it.

    Raises:
        ServiceError: INVALID_FIELD, with every field that is wrong.
    """
    states, problems = _states(message.states, f"{field}.states")
    problems += _name_problems(message, field)
    classes = {number: priority_of(number) for number in message.priorities}
    if unknown := sorted(number for number, known in classes.items() if known is None):
        problems.append(FieldViolation(f"{field}.priorities", f"has {unknown[0]}: use values of PriorityClass"))
    if len(message.search) > SEARCH_LENGTH_MAX:
        problem = f"has {len(message.search)} characters: use at most {SEARCH_LENGTH_MAX}"
        problems.append(FieldViolation(f"{field}.search", problem))
    if not message.search.isprintable():
        problems.append(FieldViolation(f"{field}.search", "has a control character: use printable ones"))
    if not all((key + value).isprintable() for key, value in message.labels.items()):
        problems.append(FieldViolation(f"{field}.labels", "has a control character: use printable ones"))
    times = {name: milliseconds(getattr(message, name)) for name in _TIMES if message.HasField(name)}  # type: ignore[arg-type]
    for name in [each for each, moment in times.items() if not _FIRST_MS <= moment <= _LAST_MS]:
        problems.append(FieldViolation(f"{field}.{name}", "is no moment: use one of the years 1 to 9999"))
    for first, before in (_TIMES[:2], _TIMES[2:]):
        if first in times and before in times and times[first] >= times[before]:
            problem = f"is not after {first}: no job lies between; give a later moment, or only one of the two"
            problems.append(FieldViolation(f"{field}.{before}", problem))
    if problems:
        raise invalid_fields(problems)
    return JobFilter(
        states=states,
        labels=dict(sorted(message.labels.items())),
        search=message.search,
        output_model=message.output_model,
        base=message.base,
        dataset=message.dataset,
        priorities=frozenset(PRIORITIES[known] for known in classes.values() if known is not None),
        sweep=message.sweep,
        **{f"{name}_ms": moment for name, moment in times.items()},
    )


def filter_key(message: jobs_pb2.JobFilter) -> str:
    """Returns a text that two filters share only when they are the same."""
    return message.SerializeToString(deterministic=True).hex()


def listing_of(request: scheduler_pb2.ListJobsRequest) -> tuple[JobFilter, JobOrder]:
    """Converts which jobs are to be listed, and in which order.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    wanted = filter_of(request.filter)
    states, problems = _states(request.states, "states")
    if states and wanted.states and not (states := states & wanted.states):
        problem = "has no state that `filter.states` has too: no job is in both; set one of the two"
        problems.append(FieldViolation("states", problem))
    order = scheduler_pb2.JobOrder.DESCRIPTOR.values_by_number.get(request.order)
    if order is None:
        problems.append(FieldViolation("order", f"has {request.order}: use values of JobOrder"))
    if problems or order is None:
        raise invalid_fields(problems)
    word = order.name.removeprefix("JOB_ORDER_")
    chosen = JobOrder.NEWEST if word == "UNSPECIFIED" else JobOrder(word)
    return (replace(wanted, states=states) if states else wanted), chosen


def _states(numbers: Iterable[int], field: str) -> tuple[frozenset[JobState], list[FieldViolation]]:
    found = {number: job_state_from_proto(number) for number in numbers}
    unknown = sorted(number for number, state in found.items() if state is None)
    problems = [FieldViolation(field, f"has {unknown[0]}: use values of JobState")] if unknown else []
    return frozenset(state for state in found.values() if state is not None), problems


def _name_problems(message: jobs_pb2.JobFilter, field: str) -> list[FieldViolation]:
    problems = []
    for name, (kind, parsers) in _NAMES.items():
        text = getattr(message, name)
        if text and not any(_reads(parse, text) for parse in parsers):
            problems.append(FieldViolation(f"{field}.{name}", f"is {text[:200]!r}: use the whole name of {kind}"))
    return problems


def _reads(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except InvalidName:
        return False
    return True
