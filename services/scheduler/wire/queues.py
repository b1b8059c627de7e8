"""Queues: record <-> message."""

from __future__ import annotations

from services.scheduler.jobs import HELD, JobState
from services.scheduler.queues.accounts import Terms, holding
from services.scheduler.queues.budgets import HOUR_MS, Price
from services.scheduler.queues.limits import DEFAULT_QUEUE, Limits
from services.scheduler.queues.standing import WAITING, Standing
from services.scheduler.wire.budgets import budget_from_proto, budget_to_proto, spending_to_proto
from services.scheduler.wire.times import optional_timestamp
from tuneforge.names import QueueName
from tuneforge.v1 import queues_pb2

_LARGEST_HOURS = 1e15
_PAUSED = frozenset({JobState.PAUSED})


def limits_from_proto(queue: queues_pb2.Queue, price: Price) -> Limits:
    """Converts what is to be set of a queue; nothing is checked.

    Args:
        queue: As it was sent.
        price: The operator's, by which a budget in money is reckoned from now on.
    """
    quota = queue.quota
    # Also of a number that is none a whole one can be made, which the rules then refuse.
    hours = quota.device_hours if abs(quota.device_hours) < _LARGEST_HOURS else _LARGEST_HOURS
    return Limits(
        weight=queue.weight,
        max_devices=quota.max_devices,
        max_jobs=quota.max_jobs,
        max_waiting_jobs=quota.max_waiting_jobs,
        window_device_ms=round(hours * HOUR_MS),
        window_hours=quota.window_hours,
        guaranteed_devices=quota.guaranteed_devices,
        budget=budget_from_proto(queue.budget).at(price),
        is_paused=queue.is_paused,
    )


def queue_to_proto(standing: Standing, now_ms: int, price: Price) -> queues_pb2.Queue:
    """Converts a queue and how it stands."""
    account, limits = standing.account, standing.account.limits
    budget = limits.budget
    cost_by = (budget.price_per_hour, budget.currency) if budget.cost else (price.per_device_hour, price.currency)
    period = account.period_ms
    return queues_pb2.Queue(
        name=str(QueueName(standing.project, DEFAULT_QUEUE)),
        weight=limits.weight,
        quota=_quota_to_proto(limits),
        budget=None if budget.is_empty else budget_to_proto(budget),
        is_paused=limits.is_paused,
        etag=etag_of(limits),
        update_time=optional_timestamp(limits.update_ms or None),
        status=queues_pb2.QueueStatus(
            usage_device_seconds=account.usage_ms / 1000,
            share=standing.share,
            target_share=standing.target,
            devices_held=account.held.devices,
            waiting_jobs=standing.jobs_in(WAITING),
            running_jobs=standing.jobs_in(HELD),
            paused_jobs=standing.jobs_in(_PAUSED),
            spent=spending_to_proto(account.spent, *cost_by),
            window_device_hours=account.window_ms / HOUR_MS if limits.window_hours else 0.0,
            hold=holding(account, Terms(now_ms=now_ms)),
            period_spent=None if period is None else spending_to_proto(account.period_spent, *cost_by),
            period_start=optional_timestamp(period and period[0]),
            period_end=optional_timestamp(period and period[1]),
        ),
    )


def etag_of(limits: Limits) -> str:
    """Returns the etag of a queue."""
    return f"r{limits.revision}"


def _quota_to_proto(limits: Limits) -> queues_pb2.Quota:
    return queues_pb2.Quota(
        max_devices=limits.max_devices,
        max_jobs=limits.max_jobs,
        max_waiting_jobs=limits.max_waiting_jobs,
        device_hours=limits.window_device_ms / HOUR_MS,
        window_hours=limits.window_hours,
        guaranteed_devices=limits.guaranteed_devices,
    )
