"""Learning rates: pure functions of the step, so that a schedule has no state to save."""

import math

from tuneforge.specs.spec import LearningRateSchedule


def learning_rate(
    step: int, total_steps: int, *, peak: float, warmup_ratio: float, schedule: LearningRateSchedule
) -> float:
    """Returns the rate that a step is made with, 0 < rate <= peak.

    The rate rises linearly over the first `warmup_ratio * total_steps` steps and reaches its peak one step later. It
    then falls so that it would be 0 one step after the last one: no step is spent on a rate of 0.

    Args:
        step: From 1 to `total_steps`.
        total_steps: Steps of the whole run.
        peak: Highest rate, > 0.
        warmup_ratio: Share of all steps over which the rate rises, 0 <= r < 1.
        schedule: How the rate falls.
    """
    warmup_steps = int(warmup_ratio * total_steps)
    if step <= warmup_steps:
        return peak * step / (warmup_steps + 1)
    progress = (step - 1 - warmup_steps) / (total_steps - warmup_steps)
    match schedule:
        case LearningRateSchedule.COSINE:
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
        case LearningRateSchedule.LINEAR:
            return peak * (1.0 - progress)
        case LearningRateSchedule.CONSTANT:
            return peak
