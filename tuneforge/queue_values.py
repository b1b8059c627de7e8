"""Queues, quotas and budgets as plain values; the calls are in `queues.py`."""

from dataclasses import dataclass
from datetime import datetime

from tuneforge import _wire
from tuneforge.v1 import queues_pb2 as pb
from tuneforge.values import Word


class BudgetPeriod(Word):
    """Periods of the calendar, in UTC."""

    UNKNOWN = "UNKNOWN"
    DAY = "DAY"
    WEEK = "WEEK"
    """From Monday on."""
    MONTH = "MONTH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a job, or all jobs of a project, may spend; 0: no limit. Jobs pause when it is spent."""

    device_seconds: float = 0.0
    """One device held for one second; on a node without accelerators the processor is one."""
    energy_joules: float = 0.0
    cost: float = 0.0
    """Money, in `currency`."""
    currency: str = ""
    """That of the operator's price; needed with `cost`."""
    period: BudgetPeriod | None = None
    """It may be spent in each such period anew; None: once. Of projects only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was spent, attempts that run included."""

    device_seconds: float
    energy_joules: float
    """0: neither measured nor to be predicted."""
    cost: float
    """0: no price is set."""
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much the jobs of a queue may have; 0: no limit."""

    max_devices: int = 0
    """Devices at once."""
    max_jobs: int = 0
    """Jobs that hold devices at once."""
    max_waiting_jobs: int = 0
    """Jobs that wait; one more is refused."""
    device_hours: float = 0.0
    """Device-hours in the last `window_hours`; once they are spent, nothing more starts."""
    window_hours: int = 0
    """1 to 744."""
    guaranteed_devices: int = 0
    """Devices that are not taken away for other projects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """How a queue stood when it was read."""

    usage_device_seconds: float
    """Device time that its jobs were given; half of it is forgotten each day."""
    share: float
    """Its part of the usage of all projects with jobs, 0 to 1."""
    target_share: float
    """The part that its weight gives it, 0 to 1."""
    devices_held: int
    waiting_jobs: int
    running_jobs: int
    paused_jobs: int
    spent: Spending
    """In all, since the first job."""
    window_device_hours: float
    """Device-hours in the window of its quota."""
    hold: str
    """Why nothing new starts; empty: it may."""
    period_spent: Spending | None
    """Since `period_start`; None: its budget has no period."""
    period_start: datetime | None
    period_end: datetime | None
    """When the next period begins, and what was paused for the budget goes on by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Where the jobs of a project wait, and how much they may have."""

    name: str
    """`projects/{project}/queues/{queue}`."""
    weight: float
    """Share of the devices in proportion to the other projects with jobs."""
    quota: Quota
    budget: Budget | None
    """What the jobs of the project may spend together; None: no limit."""
    is_paused: bool
    """Nothing new starts."""
    etag: str
    """Changes with each change."""
    update_time: datetime | None
    """None: it has the defaults."""
    status: QueueStatus

    @property
    def project(self) -> str:
        """Id of its project."""
        return self.name.split("/")[1]


def budget_to_proto(budget: Budget | None) -> pb.Budget | None:
    """Converts a budget to its message."""
    if budget is None:
        return None
    return pb.Budget(
        device_seconds=budget.device_seconds,
        energy_joules=budget.energy_joules,
        cost=budget.cost,
        currency=budget.currency,
        period=pb.BudgetPeriod.Value(
            f"BUDGET_PERIOD_{BudgetPeriod(budget.period) if budget.period else 'UNSPECIFIED'}"
        ),
    )


def budget_from_proto(message: pb.Budget) -> Budget:
    """Converts a budget."""
    return Budget(
        device_seconds=message.device_seconds,
        energy_joules=message.energy_joules,
        cost=message.cost,
        currency=message.currency,
        period=_wire.word(BudgetPeriod, pb.BudgetPeriod.DESCRIPTOR, message.period) if message.period else None,
    )


def spending_from_proto(message: pb.Spending) -> Spending:
    """Converts what was spent."""
    return Spending(
        device_seconds=message.device_seconds,
        energy_joules=message.energy_joules,
        cost=message.cost,
        currency=message.currency,
    )


def queue_from_proto(message: pb.Queue) -> Queue:
    """Converts a queue."""
    quota, status = message.quota, message.status
    return Queue(
        name=message.name,
        weight=message.weight,
        quota=Quota(
            max_devices=quota.max_devices,
            max_jobs=quota.max_jobs,
            max_waiting_jobs=quota.max_waiting_jobs,
            device_hours=quota.device_hours,
            window_hours=quota.window_hours,
            guaranteed_devices=quota.guaranteed_devices,
        ),
        budget=budget_from_proto(message.budget) if message.HasField("budget") else None,
        is_paused=message.is_paused,
        etag=message.etag,
        update_time=_wire.instant_or_none(message.update_time),
        status=QueueStatus(
            usage_device_seconds=status.usage_device_seconds,
            share=status.share,
            target_share=status.target_share,
            devices_held=status.devices_held,
            waiting_jobs=status.waiting_jobs,
            running_jobs=status.running_jobs,
            paused_jobs=status.paused_jobs,
            spent=spending_from_proto(status.spent),
            window_device_hours=status.window_device_hours,
            hold=status.hold,
            period_spent=spending_from_proto(status.period_spent) if status.HasField("period_spent") else None,
            period_start=_wire.instant_or_none(status.period_start),
            period_end=_wire.instant_or_none(status.period_end),
        ),
    )
