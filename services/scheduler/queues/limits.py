"""What the queue of a project allows, as it is stored, and whether a new job may enter it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.scheduler.queues.budgets import NO_BUDGET, Budget

DEFAULT_QUEUE = "default"
"""The queue that every project has."""
LEAST_WEIGHT = 1e-6
"""Smallest weight: the parts that weights give are divided by, and must not vanish beside the largest."""
LONGEST_WINDOW_HOURS = 24 * 31
"""Longest window of device-hours; hours before it are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a queue allows; 0 is no limit where nothing else is said."""

    weight: float = 1.0
    """Share of the devices in proportion to the others', > 0."""
    max_devices: int = 0
    """Devices that its jobs may hold at once."""
    max_jobs: int = 0
    """Jobs that may hold devices at once."""
    max_waiting_jobs: int = 0
    """Jobs that may wait; one more is refused."""
    window_device_ms: int = 0
    """Device-milliseconds that its jobs may be given in the window before nothing more starts."""
    window_hours: int = 0
    """Length of that window, up to now."""
    guaranteed_devices: int = 0
    """Devices that no job of another project is given by stopping jobs of this one; 0: none."""
    budget: Budget = NO_BUDGET
    """What its jobs may spend in all."""
    is_paused: bool = False
    """Whether nothing new starts."""
    revision: int = 0
    """Changes so far."""
    update_ms: int = 0
    """When it was changed last; 0: never."""


DEFAULT_LIMITS = Limits()
