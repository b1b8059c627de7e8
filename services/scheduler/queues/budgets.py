"""What a job or a project may spend, what it has spent, and when a budget counts as spent. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.scheduler.queues.periods import Period

HOUR_MS = 3_600_000

BUDGET_SPENT = "BUDGET_SPENT"
"""Reason of a job's change to PAUSING and PAUSED."""
BUDGET_RENEWED = "BUDGET_RENEWED"
"""Reason of its change to QUEUED when the next period of its project's budget has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a device costs."""

    per_device_hour: float = 0.0
    """In `currency`; 0: not set."""
    currency: str = ""
    """E.g. `EUR`."""


NO_PRICE = Price()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent; 0 in a field: no limit."""

    device_ms: float = 0.0
    """Device-milliseconds."""
    joules: float = 0.0
    """Energy."""
    cost: float = 0.0
    """Money, in `currency`."""
    currency: str = ""
    """E.g. `EUR`."""
    price_per_hour: float = 0.0
    """Of one device, when the budget was set: what `cost` is reckoned by, so that a new price changes no promise."""
    period: Period | None = None
    """It may be spent in each such period anew; None: once."""

    @property
    def is_empty(self) -> bool:
        """Whether it limits nothing."""
        return not (self.device_ms or self.joules or self.cost)

    def at(self, price: Price) -> Budget:
        """Returns it with its money reckoned by a price from now on."""
        return replace(self, price_per_hour=price.per_device_hour if self.cost else 0.0)


NO_BUDGET = Budget()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent."""

    device_ms: float = 0.0
    """Device-milliseconds."""
    joules: float = 0.0
    """Energy; attempts that nothing is known of count as none."""

    def plus(self, device_ms: float, joules: float) -> Spent:
        """Returns what was spent with more on top."""
        return Spent(device_ms=self.device_ms + device_ms, joules=self.joules + joules)


NOTHING_SPENT = Spent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Devices that an attempt holds at this moment."""

    devices: int = 0
    watts: float = 0.0
    """Power that they take together, as far as it is known."""

    def plus(self, devices: int, watts: float) -> Held:
        """Returns what is held with more on top."""
        return Held(devices=self.devices + devices, watts=self.watts + watts)


NOTHING_HELD = Held()


def cost_of(device_ms: float, price_per_hour: float) -> float:
    """Returns what device time costs.

    Args:
        device_ms: Device-milliseconds.
        price_per_hour: Of one device.
    """
    return device_ms / HOUR_MS * price_per_hour


def shortfalls(budget: Budget, expected: Spent, *, is_energy_known: bool) -> list[str]:
    """Returns what somebody who gives a job a budget should know, as sentences.

    Args:
        budget: What it may spend.
        expected: What it is predicted to spend.
        is_energy_known: Whether a run on such a device was measured.
    """
    found = []
    if expected.device_ms > budget.device_ms > 0:
        seconds = f"{_seconds(budget.device_ms)} device-seconds"
        found.append(f"Its budget of {seconds} is less than the {_seconds(expected.device_ms)} that are predicted")
    if expected.joules > budget.joules > 0:
        found.append(
            f"Its budget of {budget.joules:,.0f} J is less than the {expected.joules:,.0f} J that are predicted"
        )
    cost = cost_of(expected.device_ms, budget.price_per_hour)
    if cost > budget.cost > 0:
        money = f"{budget.cost:,.2f} {budget.currency}".strip()
        found.append(f"Its budget of {money} is less than the {cost:,.2f} that are predicted")
    found = [f"{sentence}: it will be paused before its end." for sentence in found]
    if budget.joules and not is_energy_known:
        found.append("No run on such a device has measured its power: energy counts only where the node has counters.")
    return found


def overrun(budget: Budget, spent: Spent, *, held: Held = NOTHING_HELD, ahead_ms: float = 0.0) -> str:
    """Returns which parts of a budget are spent, as a sentence; empty: none is.

    Args:
        budget: What may be spent.
        spent: What was spent.
        held: What goes on spending.
        ahead_ms: Time until the next look; what is spent until then counts as spent.
    """
    then = spent.plus(held.devices * ahead_ms, held.watts * ahead_ms / 1000)
    return "; ".join(_overruns(budget, spent, then))


def figure(value: float) -> str:
    """Returns a number as a person reads it."""
    return f"{value:,.1f}" if value >= 10 else f"{value:.3g}"


def _seconds(device_ms: float) -> str:
    return figure(device_ms / 1000)


def _overruns(budget: Budget, spent: Spent, then: Spent) -> Iterator[str]:
    if budget.device_ms and then.device_ms >= budget.device_ms:
        yield f"{_seconds(spent.device_ms)} of {_seconds(budget.device_ms)} device-seconds are spent"
    if budget.joules and then.joules >= budget.joules:
        yield f"{spent.joules:,.0f} of {budget.joules:,.0f} J are spent"
    if budget.cost and cost_of(then.device_ms, budget.price_per_hour) >= budget.cost:
        cost = cost_of(spent.device_ms, budget.price_per_hour)
        yield f"{cost:,.2f} of {budget.cost:,.2f} {budget.currency} are spent"
