"""Work that projects were given, older work counting less: half after a day, so that yesterday's rush is forgotten."""

from __future__ import annotations

HALF_LIFE_MS = 24 * 3_600_000


def decayed(work_ms: float, passed_ms: float) -> float:
    """Returns what work counts some time later."""
    return float(work_ms * 0.5 ** (passed_ms / HALF_LIFE_MS))


def given(devices: int, from_ms: float, to_ms: float, now_ms: float) -> float:
    """Returns what devices that were held for a while count now: the integral of the decay over that time.

    Args:
        devices: Held all the time.
        from_ms: When they were taken.
        to_ms: When they were given back, <= now_ms.
        now_ms: This moment.
    """
    rate = HALF_LIFE_MS / 0.6931471805599453  # ln 2
    return devices * rate * (decayed(1.0, now_ms - to_ms) - decayed(1.0, now_ms - from_ms))
