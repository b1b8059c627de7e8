"""Requests that make jobs, from what people give."""

from collections.abc import Mapping
from dataclasses import replace

from tuneforge import _short_names as names
from tuneforge._spec_input import SpecInput, read_spec
from tuneforge._transport import new_request_id
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.queue_values import Budget, budget_to_proto
from tuneforge.specs.scheduling import Scheduling, scheduling_to_proto
from tuneforge.v1 import scheduler_pb2 as calls


def create_request(
    project: str, spec: SpecInput, job_id: str | None, labels: Mapping[str, str] | None, from_checkpoint: str | None
) -> calls.CreateJobRequest:
    """Returns a request with a new request id.

    Raises:
        InvalidArgument: The spec, or a name, cannot be read; `fields` lists everything that is wrong.
    """
    return calls.CreateJobRequest(
        parent=names.parent(project),
        job_id=job_id or "",
        spec=read_spec(spec, project),
        labels=labels,
        from_checkpoint=names.checkpoint(project, from_checkpoint) if from_checkpoint else "",
        request_id=new_request_id(),
    )


def put_options(request: calls.CreateJobRequest, budget: Budget | None, scheduling: Scheduling | None) -> None:
    """Puts into a request what the job may spend, and when and where it may run.

    Raises:
        InvalidArgument: A moment cannot be sent, or a name is none.
    """
    if (limits := budget_to_proto(budget)) is not None:
        request.budget.CopyFrom(limits)
    if scheduling is None:
        return
    project = request.parent.rpartition("/")[2]
    scheduling = replace(
        scheduling,
        depends_on=tuple(names.job(project, each) for each in scheduling.depends_on),
        exclude_nodes=tuple(map(names.node, scheduling.exclude_nodes)),
    )
    try:
        request.scheduling.CopyFrom(scheduling_to_proto(scheduling))
    except ValueError as error:
        raise InvalidArgument(Reason.INVALID_FIELD, f"`scheduling` cannot be sent: {error}") from None
