"""What a model learns to do, one module a task: each gives the parts of a step, and of a part (sum of loss, count).

The loop and its verbs know none of them: they divide the sums by the count over all parts of a step, add up gradients,
and report what a task measures beside its loss.
"""

from services.trainer.engine.tasks.choice import make_task

__all__ = ["make_task"]
