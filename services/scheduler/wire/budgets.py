"""Budgets: message <-> dataclass, and the power that an attempt is predicted to take."""

from __future__ import annotations

from dataclasses import replace

from services.scheduler.queues.budgets import Budget, Spent, cost_of, shortfalls
from services.scheduler.queues.periods import Period
from tuneforge.v1 import jobs_pb2, queues_pb2


def budget_bytes(budget: Budget) -> bytes:
    """Returns a budget as it is stored."""
    return budget_to_proto(budget).SerializeToString()


def budget_from_bytes(stored: bytes) -> Budget:
    """Reads a stored budget."""
    message = queues_pb2.Budget.FromString(stored)
    return replace(budget_from_proto(message), price_per_hour=message.price_per_device_hour)


def budget_to_proto(budget: Budget) -> queues_pb2.Budget:
    """Converts a budget."""
    return queues_pb2.Budget(
        device_seconds=budget.device_ms / 1000,
        energy_joules=budget.joules,
        cost=budget.cost,
        currency=budget.currency,
        price_per_device_hour=budget.price_per_hour,
        period=queues_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{budget.period or 'UNSPECIFIED'}"),
    )


def budget_from_proto(message: queues_pb2.Budget) -> Budget:
    """Converts a budget as it was sent; by what price its money is reckoned is not the sender's to say."""
    return Budget(
        device_ms=message.device_seconds * 1000,
        joules=message.energy_joules,
        cost=message.cost,
        currency=message.currency,
        period=_period(message.period),
    )


def _period(number: int) -> Period | None:
    if number == queues_pb2.BUDGET_PERIOD_UNSPECIFIED:
        return None
    known = queues_pb2.BudgetPeriod.DESCRIPTOR.values_by_number.get(number)
    return Period.UNKNOWN if known is None else Period(known.name.removeprefix("BUDGET_PERIOD_"))


def spending_to_proto(spent: Spent, price_per_hour: float, currency: str) -> queues_pb2.Spending:
    """Converts what was spent, in money too where a price is set."""
    return queues_pb2.Spending(
        device_seconds=spent.device_ms / 1000,
        energy_joules=spent.joules,
        cost=cost_of(spent.device_ms, price_per_hour),
        currency=currency,
    )


def predicted_watts(resource_estimate: bytes | None) -> float:
    """Returns the power of one device that a job is predicted to take; 0: no run has measured it.

    Args:
        resource_estimate: Serialised `ResourceEstimate`.
    """
    found = jobs_pb2.ResourceEstimate.FromString(resource_estimate or b"")
    seconds = found.device_seconds.expected
    return found.energy_joules.expected / seconds if seconds > 0 else 0.0


def job_budget(message: jobs_pb2.Job, budget: Budget | None, spent: Spent, *, has_ended: bool) -> None:
    """Writes what a job may spend and has spent into its resource, and the warnings that follow from it.

    Args:
        message: The job, with its estimate.
        budget: None: no limit.
        spent: What was spent.
        has_ended: Whether nothing more will be.
    """
    found = message.resource_estimate
    if not has_ended:
        message.warnings.extend(found.advice)
    price, currency = 0.0, ""
    if budget is not None and budget.cost:
        price, currency = budget.price_per_hour, budget.currency
    elif found.device_seconds.expected > 0 and found.HasField("cost"):
        price, currency = found.cost.expected / found.device_seconds.expected * 3600, found.currency
    message.budget.spent.CopyFrom(spending_to_proto(spent, price, currency))
    if budget is None:
        return
    message.budget.limit.CopyFrom(budget_to_proto(budget))
    if not has_ended:
        expected = Spent(device_ms=found.device_seconds.expected * 1000, joules=found.energy_joules.expected)
        message.warnings.extend(shortfalls(budget, expected, is_energy_known=found.HasField("energy_joules")))
