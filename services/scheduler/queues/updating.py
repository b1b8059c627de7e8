"""What may be set of a queue, and what of it only an operator may set. Pure.

Who administers a project may make its limits tighter and hold its queue. What takes from the other projects - a larger
weight, quota, guarantee or budget - is given by an operator: an admin of all projects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.grpckit.errors import FieldViolation, invalid_fields
from services.scheduler.queues.budgets import Budget, Price
from services.scheduler.queues.limits import LEAST_WEIGHT, LONGEST_WINDOW_HOURS, Limits
from services.scheduler.queues.periods import LONGEST_DAYS, Period, bounds

_OF_QUEUE = {"weight": "weight", "is_paused": "is_paused"}
_OF_QUOTA = {
    "max_devices": "max_devices",
    "max_jobs": "max_jobs",
    "max_waiting_jobs": "max_waiting_jobs",
    "device_hours": "window_device_ms",
    "window_hours": "window_hours",
    "guaranteed_devices": "guaranteed_devices",
}
"""Field of the message -> field of `Limits`."""
_OF_BUDGET: Mapping[str, tuple[str, ...]] = {
    "device_seconds": ("device_ms",),
    "energy_joules": ("joules",),
    "cost": ("cost", "currency", "price_per_hour"),
    "period": ("period",),
}
PATHS = (
    *_OF_QUEUE,
    "quota",
    *(f"quota.{name}" for name in _OF_QUOTA),
    "budget",
    *(f"budget.{name}" for name in _OF_BUDGET),
)
"""Paths of an update mask."""
_MOST = 1_000_000
"""Largest weight and count."""
_MOST_SPENT = 1e15


def check_mask(paths: Sequence[str]) -> None:
    """Refuses an empty mask, and one that names what cannot be changed.

    Raises:
        ServiceError: INVALID_FIELD with all wrong paths.
    """
    known = ", ".join(f"`{path}`" for path in PATHS)
    violations = [
        FieldViolation("update_mask", f"names `{path[:80]}`, which cannot be changed; give some of {known}")
        for path in paths
        if path not in PATHS
    ]
    if not paths:
        violations = [FieldViolation("update_mask", f"is empty; give some of {known}")]
    if violations:
        raise invalid_fields(violations[:20])


def changed(before: Limits, wanted: Limits, paths: Sequence[str]) -> Limits:
    """Returns limits with what a mask names taken from others."""
    values: dict[str, Any] = {}
    budget: dict[str, Any] = {}
    for path in paths:
        part, _, field = path.partition(".")
        if part == "budget":
            for names in _OF_BUDGET.values() if not field else (_OF_BUDGET[field],):
                budget |= {name: getattr(wanted.budget, name) for name in names}
        elif part == "quota":
            names = tuple(_OF_QUOTA.values()) if not field else (_OF_QUOTA[field],)
            values |= {name: getattr(wanted, name) for name in names}
        else:
            values[_OF_QUEUE[part]] = getattr(wanted, _OF_QUEUE[part])
    return replace(before, **values, budget=replace(before.budget, **budget))


def limit_problems(limits: Limits) -> Iterator[FieldViolation]:
    """Yields what is wrong with the weight and the quota of a queue."""
    if not LEAST_WEIGHT <= limits.weight <= _MOST:  # nor is nan between them
        yield FieldViolation("queue.weight", f"is {limits.weight:g}: use a number from {LEAST_WEIGHT:f} to {_MOST}")
    for field in ("max_devices", "max_jobs", "max_waiting_jobs", "guaranteed_devices"):
        if (value := getattr(limits, _OF_QUOTA[field])) > _MOST:
            yield FieldViolation(f"queue.quota.{field}", f"is {value}: use at most {_MOST}, 0 = no limit")
    if limits.max_devices and limits.guaranteed_devices > limits.max_devices:
        problem = f"is {limits.guaranteed_devices}: use at most max_devices, {limits.max_devices}"
        yield FieldViolation("queue.quota.guaranteed_devices", problem)
    if not (0 <= limits.window_device_ms <= _MOST_SPENT):
        yield FieldViolation("queue.quota.device_hours", "is out of range: use 0 (no limit) to 270000000")
    if limits.window_hours > LONGEST_WINDOW_HOURS:
        problem = f"is {limits.window_hours}: use 1 to {LONGEST_WINDOW_HOURS} hours"
        yield FieldViolation("queue.quota.window_hours", problem)
    if bool(limits.window_device_ms) != bool(limits.window_hours):
        missing = "window_hours" if limits.window_device_ms else "device_hours"
        yield FieldViolation(f"queue.quota.{missing}", "is missing: device_hours and window_hours are given together")


def budget_problems(field: str, budget: Budget, price: Price, *, is_queue: bool = False) -> Iterator[FieldViolation]:
    """Yields what is wrong with a budget.

    Args:
        field: Where it stands in the request, such as `budget`.
        budget: As it was sent.
        price: The operator's price of a device hour.
        is_queue: Whether it is of a project.
    """
    parts = {"device_seconds": budget.device_ms, "energy_joules": budget.joules, "cost": budget.cost}
    for name, value in parts.items():
        if not (0 <= value <= _MOST_SPENT):
            yield FieldViolation(f"{field}.{name}", f"is {value:g}: use a number from 0 (no limit) to {_MOST_SPENT:g}")
    if budget.cost and not price.per_device_hour:
        problem = "cannot be reckoned: the operator has set no price (TUNEFORGE_SCHEDULER_PRICE_PER_DEVICE_HOUR)"
        yield FieldViolation(f"{field}.cost", problem)
    elif budget.cost and budget.currency != price.currency:
        problem = f"is {budget.currency[:20]!r}: prices here are in {price.currency or 'no currency: leave it empty'}"
        yield FieldViolation(f"{field}.currency", problem)
    if budget.period is Period.UNKNOWN:
        yield FieldViolation(f"{field}.period", "is not known here: use values of BudgetPeriod")
    elif budget.period is not None and not is_queue:
        problem = f"is {budget.period}: a job's budget is for the whole job; leave it out, or give the project one"
        yield FieldViolation(f"{field}.period", problem)


def loosened(before: Limits, after: Limits, now_ms: int) -> list[str]:
    """Returns the fields of a queue that a change makes looser."""
    names = [name for name, is_looser in _LOOSER.items() if is_looser(before, after)]
    if _forgets(before.budget, after.budget, now_ms) and "budget.period" not in names:
        names.append("budget.period")
    return names


def _forgets(before: Budget, after: Budget, now_ms: int) -> bool:
    """Returns whether something that counts as spent would not any more: a week may have begun before its month."""
    if before.is_empty or before.period is None or after.period is None:
        return False
    return bounds(after.period, now_ms)[0] > bounds(before.period, now_ms)[0]


def _more(before: float, after: float) -> bool:
    """Returns whether a limit grows; 0 is no limit."""
    return (after or math.inf) > (before or math.inf)


def _cost_ms(budget: Budget) -> float:
    """Returns the device time that a budget in money pays; 0: no limit."""
    return budget.cost / budget.price_per_hour if budget.cost and budget.price_per_hour else 0.0


def _days(budget: Budget) -> float:
    """Returns how long a budget has to last; for ever without a period."""
    return math.inf if budget.period is None else LONGEST_DAYS[budget.period]


_LOOSER: Mapping[str, Callable[[Limits, Limits], bool]] = {
    "weight": lambda before, after: after.weight > before.weight,
    "quota.max_devices": lambda before, after: _more(before.max_devices, after.max_devices),
    "quota.max_jobs": lambda before, after: _more(before.max_jobs, after.max_jobs),
    "quota.max_waiting_jobs": lambda before, after: _more(before.max_waiting_jobs, after.max_waiting_jobs),
    "quota.device_hours": lambda before, after: _more(before.window_device_ms, after.window_device_ms),
    "quota.window_hours": lambda before, after: bool(after.window_hours) and after.window_hours < before.window_hours,
    "quota.guaranteed_devices": lambda before, after: after.guaranteed_devices > before.guaranteed_devices,
    "budget.device_seconds": lambda before, after: _more(before.budget.device_ms, after.budget.device_ms),
    "budget.energy_joules": lambda before, after: _more(before.budget.joules, after.budget.joules),
    "budget.period": lambda before, after: not before.budget.is_empty and _days(after.budget) < _days(before.budget),
    "budget.cost": lambda before, after: _more(_cost_ms(before.budget), _cost_ms(after.budget)),
}
