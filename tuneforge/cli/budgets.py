"""Flags of budgets, and how budgets and spending are printed."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tuneforge.queue_values import Budget, Spending

BUDGET_FLAGS = ("budget_device_hours", "budget_kwh", "budget_cost")
"""Names of the flags of a budget."""
_HOUR_S = 3600.0
_KWH_J = 3.6e6


class MoneyType(click.ParamType["tuple[float, str]"]):
    """An amount and its currency, such as `12.50EUR`; a bare number where the operator's price has no currency."""

    name = "money"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[float, str]:
        """Reads it."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]{0,8})\s*", str(value))
        if found is None:
            self.fail(f"{value!r} is no amount; give e.g. 12.50EUR", parameter, context)
        return float(found[1]), found[2]


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the flags of a budget."""
    options = [
        click.option("--budget-device-hours", type=click.FloatRange(min=0), help="Device-hours that it may take."),
        click.option("--budget-kwh", type=click.FloatRange(min=0), help="Energy that it may take, in kWh."),
        click.option("--budget-cost", type=MoneyType(), metavar="AMOUNT", help="Money that it may cost: 12.50EUR."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def budget_of(flags: dict[str, Any]) -> "Budget | None":
    """Returns the budget that flags give; None: none of them was given."""
    from tuneforge.queue_values import Budget

    if all(flags.get(name) is None for name in BUDGET_FLAGS):
        return None
    cost, currency = flags["budget_cost"] or (0.0, "")
    return Budget(
        device_seconds=(flags["budget_device_hours"] or 0.0) * _HOUR_S,
        energy_joules=(flags["budget_kwh"] or 0.0) * _KWH_J,
        cost=cost,
        currency=currency,
    )


def hours(seconds: float) -> str:
    """Returns device time as people reckon it."""
    return f"{seconds / _HOUR_S:.4g} device-hours" if seconds >= _HOUR_S / 10 else f"{seconds:.4g} device-seconds"


def shown_spending(spent: "Spending", budget: "Budget | None") -> str:
    """Returns what was spent, and of what where there is a limit."""
    limit = (0.0, 0.0, 0.0) if budget is None else (budget.device_seconds, budget.energy_joules, budget.cost)
    parts = [_of(hours(spent.device_seconds), hours(limit[0]) if limit[0] else "")]
    if spent.energy_joules or limit[1]:
        parts.append(_of(f"{spent.energy_joules / _KWH_J:.4g} kWh", f"{limit[1] / _KWH_J:.4g} kWh" if limit[1] else ""))
    if spent.cost or limit[2]:
        money = f" {spent.currency}".rstrip()
        parts.append(_of(f"{spent.cost:.2f}{money}", f"{limit[2]:.2f}{money}" if limit[2] else ""))
    return ", ".join(parts)


def _of(spent: str, limit: str) -> str:
    return f"{spent} of {limit}" if limit else spent
