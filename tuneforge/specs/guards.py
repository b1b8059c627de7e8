"""What ends a run that cannot come to anything: defaults, and what may be wrong with such a choice."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tuneforge.errors import FieldViolation
from tuneforge.specs.spec import Guards

LOSS_EXPLOSION_FACTOR = 3.0
ZERO_GRADIENT_STEPS = 3
STALL_AFTER_S = 600.0
STALL_ENDS_AFTER_S = 1800.0
STALL_RANGE_S = (1.0, 7 * 24 * 3600.0)


def with_guard_defaults(guards: Guards) -> Guards:
    """Returns the guards with every default filled in."""
    stall_after_s = STALL_AFTER_S if guards.stall_after_s is None else guards.stall_after_s
    ends_after_s = guards.stall_ends_after_s
    factor, steps = guards.loss_explosion_factor, guards.zero_gradient_steps
    return Guards(
        loss_explosion_factor=LOSS_EXPLOSION_FACTOR if factor is None else factor,
        zero_gradient_steps=ZERO_GRADIENT_STEPS if steps is None else steps,
        allow_no_effect=guards.allow_no_effect,
        stall_after_s=stall_after_s,
        stall_ends_after_s=max(STALL_ENDS_AFTER_S, stall_after_s) if ends_after_s is None else ends_after_s,
    )


def guard_violations(guards: Guards) -> Iterator[FieldViolation]:
    """Yields everything that is wrong with the guards of a spec."""
    factor = guards.loss_explosion_factor
    if factor is not None and factor != 0 and not (math.isfinite(factor) and factor > 1):
        yield FieldViolation("guards.loss_explosion_factor", f"is {factor}: use a number > 1, or 0 to switch it off")
    if guards.zero_gradient_steps is not None and guards.zero_gradient_steps < 0:
        yield FieldViolation("guards.zero_gradient_steps", f"is {guards.zero_gradient_steps}: use 0 or more")
    low, high = STALL_RANGE_S
    is_wrong = False
    for name in ("stall_after", "stall_ends_after"):
        value = getattr(guards, f"{name}_s")
        if value is not None and not low <= value <= high:
            is_wrong = True
            yield FieldViolation(f"guards.{name}", f"is {value} s: use {low:.0f} s to {high:.0f} s (7 days)")
    filled = with_guard_defaults(guards)
    after_s, ends_after_s = filled.stall_after_s or 0.0, filled.stall_ends_after_s or 0.0
    if not is_wrong and ends_after_s < after_s:
        yield FieldViolation(
            "guards.stall_ends_after", f"is {ends_after_s:g} s: use at least `guards.stall_after`, {after_s:g} s"
        )
