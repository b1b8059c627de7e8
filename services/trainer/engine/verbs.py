"""The four verbs of training, over one model in this process: forward_backward, optim_step, save_state, sample.

The engine knows weights and tensors; which rows, which rate and when to save is the loop's (`loop.py`).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.trainer.engine import checkpoints, evaluation, optimizers
from services.trainer.engine.batches import BatchLimits, micro_batches
from services.trainer.engine.checkpoint_writer import CheckpointWriter, EndedSave
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import supervised_loss
from services.trainer.engine.precision import autocast
from services.trainer.engine.randomness import random_state, restore_random_state
from services.trainer.engine.training_task import TrainingFault
from tuneforge.errors import Reason
from tuneforge.specs.spec import ComputeType, Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine computes and where it saves."""

    device: torch.device
    """Where the model is."""
    compute: ComputeType
    """Format of the products, resolved."""
    limits: BatchLimits
    """How much is computed at once."""
    optimizer: Optimizer
    """The update rule."""
    weight_decay: float
    """Decoupled weight decay, >= 0."""
    max_grad_norm: float
    """Norm that gradients are scaled down to, 0 = no clipping."""
    end_tokens: frozenset[int]
    """Tokens that end a completion."""
    checkpoints: Path
    """The job's checkpoints."""
    keep_last: int
    """How many of them stay, >= 1."""
    attempt: int
    """Number of this attempt."""
    beat: Callable[[], None]
    """Called after each micro-batch, each generated token and each saved state."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What a forward and backward pass over the rows of a step gave."""

    loss: float
    """Mean over the supervised tokens, in nats a token."""
    tokens: int
    """Tokens computed, filling left out."""
    supervised_tokens: int
    """Tokens that the loss counts."""


class Engine:
    """One model, the weights of it that move, and their optimiser."""

    def __init__(self, model: Any, options: EngineOptions) -> None:
        self._model = model
        self._options = options
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self._optimizer = optimizers.make_optimizer(
            options.optimizer, self.parameters, weight_decay=options.weight_decay
        )
        self._writer = CheckpointWriter(options.checkpoints, keep_last=options.keep_last)
        model.train()

    def forward_backward(self, examples: Sequence[Example]) -> StepLoss:
        """Adds the gradient of the mean loss over all supervised tokens of some rows, in as many parts as memory asks.

        Raises:
            TrainingFault: LOSS_NOT_FINITE.
        """
        batches = micro_batches(examples, self._options.limits)
        count = sum(len(batch.targets_S) for batch in batches)
        loss_sum = 0.0
        # One context for all parts: weights that move are cast to the products' format once a step.
        with autocast(self._options.compute, self._options.device):
            for batch in batches:
                loss = supervised_loss(self._model, batch.to(self._options.device))
                (loss.sum / count).backward()
                loss_sum += loss.sum.item()
                self._options.beat()
        mean = loss_sum / count
        if not math.isfinite(mean):
            raise _not_finite("loss", mean)
        return StepLoss(mean, sum(batch.tokens for batch in batches), count)

    def optim_step(self, learning_rate: float) -> float:
        """Clips the gradients, moves the weights and drops the gradients; returns the norm before clipping.

        Raises:
            TrainingFault: LOSS_NOT_FINITE, when the norm is no finite number; the weights have not moved.
        """
        clip_at = self._options.max_grad_norm or math.inf
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), clip_at))
        if not math.isfinite(grad_norm):
            raise _not_finite("norm of the gradients", grad_norm)
        self._writer.release()
        optimizers.update(self._optimizer, learning_rate)
        return grad_norm

    def save_state(self, step: int, facts: Mapping[str, Any], *, keep_steps: Collection[int] = ()) -> None:
        """Begins to save all that an exact resume needs; returns once the state is copied, before it is on disk.

        Args:
            step: Last finished step.
            facts: What the loop and the resolution want to find again; JSON values.
            keep_steps: Steps whose checkpoints stay however old they are.
        """
        tensors = {
            "weights": dict(self.parameters),
            "optimizer": optimizers.state_tensors(self._optimizer, self.parameters),
            "random": random_state(self._options.device),
        }
        checkpoint = checkpoints.Checkpoint(step=step, attempt=self._options.attempt, facts=facts, tensors=tensors)
        self._writer.begin(checkpoint, keep_steps)
        self._options.beat()

    def ended_saves(self, *, wait: bool = False) -> list[EndedSave]:
        """Returns the saves that are over and were not returned before; with `wait` none is left open."""
        return self._writer.ended(wait=wait)

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Puts back the state that `save_state` saved."""
        self.restore_weights(checkpoint)
        optimizers.load_state_tensors(self._optimizer, self.parameters, checkpoint.tensors.get("optimizer", {}))
        restore_random_state(checkpoint.tensors["random"], self._options.device)

    def restore_weights(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Puts back the weights alone."""
        weights = checkpoint.tensors["weights"]
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def sample(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Completes prompts, given and returned as token ids, with the likeliest tokens."""
        return evaluation.complete(
            self._model,
            prompts,
            max_new_tokens=max_new_tokens,
            end_tokens=self._options.end_tokens,
            compute=self._options.compute,
            beat=self._options.beat,
        )

    def evaluate(self, examples: Sequence[Example]) -> tuple[float, int]:
        """Returns the mean loss over the supervised tokens of some rows, and how many tokens these are."""
        options = self._options
        return evaluation.evaluate(self._model, examples, options.limits, options.compute, options.beat)


def _not_finite(what: str, value: float) -> TrainingFault:
    return TrainingFault(
        Reason.LOSS_NOT_FINITE,
        f"The {what} became {value}.",
        "Lower optimization.learning_rate, raise optimization.warmup_ratio, or compute in FP32; the last checkpoint is "
        "from before it.",
        metadata={"value": str(value)},
    )
