"""Learning rates: pure functions of the step, so that a schedule has no state to save."""

import math

from tuneforge.specs.spec import LearningRateSchedule, Optimization


def learning_rate(step: int, total_steps: int, optimization: Optimization) -> float:
    """Returns the rate that a step is made with, 0 < rate <= peak.

    The rate rises linearly over the first `warmup_ratio * total_steps` steps and reaches its peak one step later. Where
    it then falls to 0, it would be 0 one step after the last one: no step is spent on a rate of 0.

    Args:
        step: From 1 to `total_steps`.
        total_steps: Steps of the whole run.
        optimization: Peak, warm-up and schedule, with all defaults.
    """
    peak = optimization.learning_rate
    warmup_steps = int((optimization.warmup_ratio or 0.0) * total_steps)
    if step <= warmup_steps:
        return peak * step / (warmup_steps + 1)
    done = step - 1 - warmup_steps
    progress = done / (total_steps - warmup_steps)
    match optimization.schedule:
        case LearningRateSchedule.COSINE:
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
        case LearningRateSchedule.LINEAR:
            return peak * (1.0 - progress)
        case LearningRateSchedule.CONSTANT:
            return peak
        case LearningRateSchedule.WSD:
            falling_steps = max(1, round((optimization.decay_ratio or 0.0) * total_steps))
            return peak * min(1.0, (total_steps + 1 - step) / falling_steps)
        case LearningRateSchedule.STEP:
            return peak * float((optimization.decay_factor or 1.0) ** (done // (optimization.decay_every_steps or 1)))
