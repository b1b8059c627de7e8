"""The four verbs of training, over one model: forward_backward, optim_step, save_state, sample.

The engine knows weights and tensors; which rows, which rate and when to save is the loop's (`loop.py`). When several
processes hold the model together each of them speaks every verb, at the same moment, with the same rows: `dealing.py`
says which of these it computes, and `spread.py` where the weights are.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from services.trainer.engine import checkpoints, evaluation, gang_state, optimizers
from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.checkpoint_writer import CheckpointWriter, EndedSave
from services.trainer.engine.corpus import Example
from services.trainer.engine.dealing import share_of
from services.trainer.engine.gang import ALONE, Gang
from services.trainer.engine.losses import LossSum, LossTotal, StepLoss
from services.trainer.engine.precision import autocast
from services.trainer.engine.randomness import random_state, restore_random_state
from services.trainer.engine.scaling import LossScale
from services.trainer.engine.spread import Layout, SpreadModel
from services.trainer.engine.task import Task
from services.trainer.engine.tensor_file import digest_of_tensors
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
    end_tokens: Callable[[], frozenset[int]]
    """Returns the tokens that end a completion; asked by `sample`, not before."""
    checkpoints: Path
    """The job's checkpoints."""
    keep_last: int
    """How many of them stay, >= 1."""
    attempt: int
    """Number of this attempt."""
    beat: Callable[[], None]
    """Called after each micro-batch, each generated token and each saved state."""
    gang: Gang = ALONE
    """The processes that train the model together."""
    layout: Layout = Layout.HERE
    """Where the weights of the model go."""


class Engine:
    """One model, the weights of it that move, and their optimiser."""

    def __init__(self, model: Any, task: Task, options: EngineOptions) -> None:
        self._model = model
        self._task = task
        self._options = options
        self._gang = options.gang
        self._spread = SpreadModel(model, options.layout, options.gang, options.device)
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self._optimizer = optimizers.make_optimizer(
            options.optimizer, self.parameters, weight_decay=options.weight_decay
        )
        self._writer = CheckpointWriter(options.checkpoints, keep_last=options.keep_last)
        self._scale = LossScale(options.compute)
        self._open_saves = 0
        model.train()

    def forward_backward(self, examples: Sequence[Example]) -> StepLoss:
        """Adds the gradient of the mean loss over all that some rows teach, in as many parts as memory asks.

        Raises:
            TrainingFault: LOSS_NOT_FINITE.
        """
        share = share_of(self._task, examples, self._options.limits, self._gang)
        total, last = LossTotal(share.totals), len(share.parts) - 1
        computed: list[LossSum] = []

        def loss_sum(model: Any, part: Any) -> torch.Tensor:
            computed[:] = [self._task.loss(model, part)]
            return computed[0].sum

        # One context for all parts: weights that move are cast to the products' format once a step.
        with autocast(self._options.compute, self._options.device):
            for index, part in enumerate(share.parts):
                counts = index < share.own
                divisor = share.totals.count / self._scale.factor if counts else math.inf
                part = part.to(self._options.device)
                value = self._spread.backward(loss_sum, part, divisor=divisor, is_last=index == last)
                total.add(value, computed[0], counts=counts)
                self._options.beat()
        found = total.result(self._gang)
        if not math.isfinite(found.loss):
            raise _not_finite("loss", found.loss)
        return found

    def optim_step(self, learning_rate: float) -> float:
        """Clips the gradients, moves the weights and drops the gradients; returns the norm before clipping.

        In float16 gradients may overflow: then nothing moves, and the norm is infinite.

        Raises:
            TrainingFault: LOSS_NOT_FINITE, when the norm is no finite number; the weights have not moved.
        """
        clip_at = self._options.max_grad_norm or math.inf
        self._scale.unscale(self.parameters.values())
        grad_norm = self._spread.clip(self.parameters, clip_at)
        if not self._scale.moves(grad_norm):
            optimizers.forget_gradients(self._optimizer)
            return math.inf
        if not math.isfinite(grad_norm):
            raise _not_finite("norm of the gradients", grad_norm)
        self._writer.release()
        optimizers.update(self._optimizer, learning_rate)
        return grad_norm

    def save_state(self, step: int, facts: Mapping[str, Any], *, keep_steps: Collection[int] = ()) -> None:
        """Begins to save all that an exact resume needs; returns once the state is copied, before it is on disk.

        The states of all processes go into one checkpoint, which the first one writes.

        Args:
            step: Last finished step.
            facts: What the loop and the resolution want to find again; JSON values.
            keep_steps: Steps whose checkpoints stay however old they are.
        """
        options = self._options
        tensors = {
            "weights": self.whole_weights(),
            "optimizer": self._spread.gathered(optimizers.state_tensors(self._optimizer, self.parameters)),
            "random": gang_state.collected_random(self._gang, random_state(options.device)),
        }
        if self._scale.is_used:
            tensors["scale"] = self._scale.tensors()
        if self._gang.is_first:
            checkpoint = checkpoints.Checkpoint(step=step, attempt=options.attempt, facts=facts, tensors=tensors)
            self._writer.begin(checkpoint, keep_steps)
        self._open_saves += 1
        self._options.beat()

    def weights_digest(self) -> str:
        """Returns the SHA-256 of the file of weights that `save_state` would write now."""
        return digest_of_tensors({name: tensor.detach().cpu() for name, tensor in self.whole_weights().items()})

    def ended_saves(self, *, wait: bool = False) -> list[EndedSave]:
        """Returns the saves that are over and were not returned before; with `wait` none is left open."""
        if not self._open_saves:
            return []
        ended = gang_state.ended_at_first(self._gang, lambda: self._writer.ended(wait=wait))
        self._open_saves -= len(ended)
        return ended

    def settle(self) -> list[EndedSave]:
        """Waits until nothing is written any more, and returns the saves that were not returned before.

        Asks no other process: only the first one has saves.
        """
        return self._writer.ended(wait=True)

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Puts back the state that `save_state` saved."""
        self.restore_weights(checkpoint)
        state = {
            key: self._spread.scattered(tensor, like=self.parameters[key.partition(":")[2]])
            for key, tensor in checkpoint.tensors.get("optimizer", {}).items()
        }
        optimizers.load_state_tensors(self._optimizer, self.parameters, state)
        self._scale.load(checkpoint.tensors.get("scale", {}))
        restore_random_state(gang_state.own_random(self._gang, checkpoint.tensors["random"]), self._options.device)

    def restore_weights(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Puts back the weights alone."""
        weights = checkpoint.tensors["weights"]
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self._spread.scattered(weights[name], like=parameter))

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """Returns the weights that move, whole, in the first process; an empty mapping in the others."""
        return self._spread.gathered(self.parameters)

    def sample(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Completes prompts, given and returned as token ids, with the likeliest tokens."""
        complete = partial(
            evaluation.complete,
            prompts=prompts,
            max_new_tokens=max_new_tokens,
            end_tokens=self._options.end_tokens(),
            compute=self._options.compute,
            beat=self._options.beat,
            agree=lambda tokens: self._gang.share(tokens.cpu()).to(tokens.device),
        )
        return self._spread.measure(complete)

    def evaluate(self, examples: Sequence[Example]) -> StepLoss:
        """Returns the mean loss over some rows, without learning from them.

        Raises:
            TrainingFault: LOSS_NOT_FINITE.
        """
        options = self._options
        found = self._spread.measure(
            evaluation.evaluate, self._task, examples, options.limits, options.compute, options.beat, self._gang
        )
        if not math.isfinite(found.loss):
            raise _not_finite("validation loss", found.loss)
        return found


def _not_finite(what: str, value: float) -> TrainingFault:
    return TrainingFault(
        Reason.LOSS_NOT_FINITE,
        f"The {what} became {value}.",
        "Lower optimization.learning_rate, raise optimization.warmup_ratio, or compute in FP32; the last checkpoint is "
        "from before it.",
        metadata={"value": str(value)},
    )
