"""Guards against runs that cannot come to anything: a loss that explodes, no gradient, adapters without effect.

Each ends the run with a reason and a cure. What they remember stands in `Progress`, so that a resumed run is judged as
an unbroken one. A loss that is no finite number is the engine's to see (`verbs`), a run that stands still the agent's.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from services.trainer.engine.batches import padded_batch
from services.trainer.engine.corpus import Example
from services.trainer.engine.evaluation import measuring
from services.trainer.engine.losses import unwrapped
from services.trainer.engine.precision import autocast
from services.trainer.engine.run import Progress
from services.trainer.engine.training_task import TrainingFault
from tuneforge.errors import Reason
from tuneforge.specs.spec import ComputeType, Guards

EXPLODED_STEPS = 3
"""Steps in a row that must be far off: one row of garbage is no explosion."""
WINDOW_STEPS = 16
"""Steps in a row whose median is the level of a run; the lowest such level is what they are compared with."""
_FEWEST_STEPS = 4
"""So many of them must be there at a run's beginning."""
_EFFECT_ROWS = 4
"""Rows that the model is asked about with its adapters and without."""


def check_step(guards: Guards, progress: Progress, loss: float, grad_norm: float) -> None:
    """Looks at a step that is finished and counted.

    Args:
        guards: With defaults.
        progress: After the step; what the guards remember is written into it.
        loss: The step's mean loss.
        grad_norm: Norm of its gradients before clipping.

    Raises:
        TrainingFault: LOSS_EXPLODED or NO_EFFECT.
    """
    if progress.first_loss is None:
        progress.first_loss = loss
    progress.recent_losses = [*progress.recent_losses, loss][-(WINDOW_STEPS + EXPLODED_STEPS) :]
    progress.has_gradient = progress.has_gradient or grad_norm > 0.0
    if guards.loss_explosion_factor:
        _check_explosion(guards.loss_explosion_factor, progress)
    if guards.zero_gradient_steps and not progress.has_gradient and progress.step >= guards.zero_gradient_steps:
        raise TrainingFault(
            Reason.NO_EFFECT,
            f"In the first {progress.step} steps no weight that moves had a gradient.",
            "Check which layers the spec names, and that the rows' answers are not all the same token; "
            "`guards.zero_gradient_steps` says after how many steps this is judged.",
            metadata={"step": str(progress.step)},
        )


def _check_explosion(factor: float, progress: Progress) -> None:
    before, last = progress.recent_losses[:-EXPLODED_STEPS], progress.recent_losses[-EXPLODED_STEPS:]
    if len(before) < _FEWEST_STEPS or progress.first_loss is None:
        return
    # The lowest level so far and not the last one: a loss that grows slowly would take its median along.
    usual = min(statistics.median(before), progress.usual_loss or float("inf"))
    progress.usual_loss = usual
    if min(last) <= max(factor * usual, progress.first_loss):
        return
    raise TrainingFault(
        Reason.LOSS_EXPLODED,
        f"The loss of the last {EXPLODED_STEPS} steps was {min(last):.4g} or more; the run had come down to {usual:.4g}"
        f" and began with {progress.first_loss:.4g}.",
        "Lower optimization.learning_rate or raise optimization.warmup_ratio; guards.loss_explosion_factor says how "
        "much is too much.",
        metadata={"loss": str(min(last)), "usual": str(usual), "factor": str(factor), "step": str(progress.step)},
    )


def check_effect(model: Any, examples: Sequence[Example], compute: ComputeType, guards: Guards) -> None:
    """Asks a trained model for the same rows with its adapters and without; a model without adapters is not asked.

    Args:
        model: A causal language model of transformers, perhaps with adapters of PEFT in it.
        examples: Rows that it was trained on, at least one; the shortest of them are taken.
        compute: Format of the products.
        guards: With defaults.

    Raises:
        TrainingFault: NO_EFFECT, when every output is the same, bit for bit.
    """
    if guards.allow_no_effect or not hasattr(model, "disable_adapter"):
        return
    device = torch.device(next(model.parameters()).device)
    rows = sorted(examples, key=lambda example: len(example.tokens_T))[:_EFFECT_ROWS]
    batch = padded_batch([row.texts[0] for row in rows]).to(device)
    decoder = unwrapped(model).base_model
    with measuring(model, device), autocast(compute, device):
        trained = decoder(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
        with model.disable_adapter():
            base = decoder(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
    if torch.equal(trained, base):
        raise TrainingFault(
            Reason.NO_EFFECT,
            f"After the last step the adapters change nothing: the outputs for {len(batch.input_ids_BT)} rows are bit "
            "for bit those of the base.",
            "Train for more steps or with a higher optimization.learning_rate; set guards.allow_no_effect if a result "
            "that equals its base is wanted.",
        )
