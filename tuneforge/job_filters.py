"""Which jobs are meant: of lists, and of verbs for many jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tuneforge import _short_names as names
from tuneforge.job_values import JobState
from tuneforge.specs.scheduling import PriorityClass, priority_to_proto
from tuneforge.v1 import jobs_pb2 as pb
from tuneforge.v1 import scheduler_pb2 as calls
from tuneforge.values import Word


class JobOrder(Word):
    """Orders of a list of jobs."""

    UNKNOWN = "UNKNOWN"
    NEWEST = "NEWEST"
    """The job that was created last comes first."""
    OLDEST = "OLDEST"
    ENDED_LAST = "ENDED_LAST"
    """The job that ended last comes first; jobs that have not ended are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """What applies to all jobs that are meant; nothing set: every job of the project."""

    states: tuple[JobState, ...] = ()
    """In one of these states."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """With all of these labels; an empty value stands for any value of the key."""
    search: str = ""
    """Text in the job's id or its creator, upper or lower case; at most 256 characters."""
    output_model: str = ""
    """Publishes into this model."""
    base: str = ""
    """A version (`id/3`), or a model for all of its versions."""
    dataset: str = ""
    """A version of a data set (`id/3`), or a data set for all of its versions."""
    created_from: datetime | None = None
    """Created at this moment or later."""
    created_before: datetime | None = None
    ended_from: datetime | None = None
    """Ended at this moment or later."""
    ended_before: datetime | None = None
    priorities: tuple[PriorityClass, ...] = ()
    """In one of these classes."""
    sweep: str = ""
    """A trial of this sweep."""


def filter_to_proto(wanted: JobFilter, project: str) -> pb.JobFilter:
    """Converts a filter to its message, short names made whole in a project."""
    return pb.JobFilter(
        states=[pb.JobState.Value(f"JOB_STATE_{JobState(state)}") for state in wanted.states],
        labels=dict(wanted.labels),
        search=wanted.search,
        output_model=names.model(project, wanted.output_model) if wanted.output_model else "",
        base=_model(project, wanted.base) if wanted.base else "",
        dataset=_dataset(project, wanted.dataset) if wanted.dataset else "",
        created_from=_moment(wanted.created_from),
        created_before=_moment(wanted.created_before),
        ended_from=_moment(wanted.ended_from),
        ended_before=_moment(wanted.ended_before),
        priorities=[priority_to_proto(PriorityClass(each)) for each in wanted.priorities],
        sweep=names.sweep(project, wanted.sweep) if wanted.sweep else "",
    )


def order_to_proto(order: JobOrder) -> calls.JobOrder.ValueType:
    """Converts an order to its number."""
    return calls.JobOrder.Value(f"JOB_ORDER_{JobOrder(order)}")


def _model(project: str, value: str) -> str:
    is_model = "/" not in value or (value.startswith("projects/") and "/versions/" not in value)
    return names.model(project, value) if is_model else names.model_version(project, value)


def _dataset(project: str, value: str) -> str:
    is_dataset = "/" not in value or (value.startswith("projects/") and "/versions/" not in value)
    return names.dataset(project, value) if is_dataset else names.dataset_version(project, value)


def _moment(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
