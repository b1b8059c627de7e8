"""Whether a new job may enter the queue of its project."""

from __future__ import annotations

from sqlalchemy import Connection

from services.grpckit.errors import Reason, ServiceError
from services.scheduler.queues.limits import DEFAULT_QUEUE, Limits
from services.scheduler.queues.standing import WAITING
from services.scheduler.records import Needs, NewJob
from services.scheduler.store import queues as queue_store
from services.scheduler.store import usage
from tuneforge.names import QueueName


def devices_of(needs: Needs) -> int:
    """Returns how many devices a job holds at least while it runs; one on the CPU counts as one."""
    return needs.nodes * max(1, 1 if needs.devices is None else needs.devices)


def require_room(connection: Connection, new: NewJob, *, locks: bool = False) -> None:
    """Refuses a job that its project's quota has no room for.

    Args:
        connection: To the database.
        new: The job.
        locks: Lets other jobs of the project wait until this transaction is over, so that two do not take one place.

    Raises:
        ServiceError: QUOTA_TOO_SMALL, it could never start; QUOTA_EXCEEDED, too many wait now.
    """
    project = new.name.project
    limits = queue_store.find(connection, project, locks=locks)
    if (wanted := devices_of(new.needs)) > limits.max_devices > 0:
        raise _too_large(project, wanted, limits)
    if limits.max_waiting_jobs and (used := usage.jobs_in(connection, project, WAITING)) >= limits.max_waiting_jobs:
        quota, limit = "max_waiting_jobs", limits.max_waiting_jobs
        raise ServiceError(
            Reason.QUOTA_EXCEEDED,
            f"{used} jobs of the project {project} wait, {limit} may",
            metadata={"name": _queue(project), "quota": quota, "limit": str(limit), "used": str(used)},
        )


def _too_large(project: str, wanted: int, limits: Limits) -> ServiceError:
    limit = str(limits.max_devices)
    return ServiceError(
        Reason.QUOTA_TOO_SMALL,
        f"it asks for {wanted} devices (resources.nodes times devices_per_node), the quota of {project} allows {limit} "
        "at once: it would wait for ever",
        metadata={"name": _queue(project), "quota": "max_devices", "limit": limit, "wanted": str(wanted)},
    )


def _queue(project: str) -> str:
    return str(QueueName(project, DEFAULT_QUEUE))
