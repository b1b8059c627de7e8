"""Whether a new job may enter the queue of its project."""

from __future__ import annotations

from collections.abc import Sequence

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


def require_room(connection: Connection, *news: NewJob, locks: bool = False) -> None:
    """Refuses jobs of one project that its quota has no room for.

    Args:
        connection: To the database.
        news: The jobs.
        locks: Lets other jobs of the project wait until this transaction is over, so that two do not take one place.

    Raises:
        ServiceError: QUOTA_TOO_SMALL, one could never start; QUOTA_EXCEEDED, too many wait now.
    """
    project = news[0].name.project
    limits = queue_store.find(connection, project, locks=locks)
    _require_devices(news, limits)
    quota, limit = "max_waiting_jobs", limits.max_waiting_jobs
    if limit and (used := usage.jobs_in(connection, project, WAITING)) + len(news) > limit:
        raise ServiceError(
            Reason.QUOTA_EXCEEDED,
            f"{used} jobs of the project {project} wait, {limit} may",
            metadata={"name": _queue(project), "quota": quota, "limit": str(limit), "used": str(used)},
        )


def require_devices(connection: Connection, new: NewJob) -> None:
    """Refuses a job that could never start by its project's quota.

    Raises:
        ServiceError: QUOTA_TOO_SMALL.
    """
    _require_devices([new], queue_store.find(connection, new.name.project))


def is_full(connection: Connection, project: str) -> bool:
    """Returns whether as many jobs of a project wait as may."""
    most = queue_store.find(connection, project).max_waiting_jobs
    return bool(most) and usage.jobs_in(connection, project, WAITING) >= most


def _require_devices(news: Sequence[NewJob], limits: Limits) -> None:
    if (wanted := max(devices_of(new.needs) for new in news)) > limits.max_devices > 0:
        raise _too_large(news[0].name.project, wanted, limits)


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
