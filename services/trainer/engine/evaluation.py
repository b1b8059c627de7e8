"""What is measured during a run without changing it: the validation loss, and samples.

Dropout is off, no gradient is kept, and the generators of random numbers are put back, so that a run with evaluations
has the same weights as one without.

Suffixes: B prompts, T positions, V vocabulary.
"""
# ruff: noqa: N806  (tensors carry their shape in upper case at the end of their names)

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.gang import ALONE, Gang
from services.trainer.engine.losses import LossTotal, StepLoss, Totals
from services.trainer.engine.precision import autocast, is_quantized
from services.trainer.engine.randomness import random_state, restore_random_state
from services.trainer.engine.task import Task
from tuneforge.specs.spec import ComputeType

_ROWS_AT_ONCE = 256
"""Rows that are sorted by length together: enough for little filling, few enough to hold their tensors."""


def _nothing() -> None:
    pass


@contextlib.contextmanager
def measuring(model: Any, device: torch.device) -> Iterator[None]:
    """Puts a model into evaluation mode, and back, with the random state that was there."""
    state = random_state(device)
    try:
        with judging(model):
            yield
    finally:
        restore_random_state(state, device)


@contextlib.contextmanager
def judging(model: Any) -> Iterator[None]:
    """Puts a model into evaluation mode without gradients, and back; a model that is in it already stays."""
    was_training = model.training
    if was_training:
        model.eval()
        keep_four_bit_weights(model)
    try:
        with torch.no_grad():
            yield
    finally:
        if was_training:
            model.train()


def keep_four_bit_weights(model: Any) -> None:
    """Puts the quantised layers of a model in evaluation mode back into that of training; they have no dropout.

    In evaluation mode bitsandbytes packs 4-bit weights for good, in a form that computes in bfloat16, from which DoRA
    cannot take a norm, and which has no backward pass: the next training step would get wrong gradients.
    """
    for module in model.modules():
        if is_quantized(module):
            module.train()


def evaluate(
    model: Any,
    task: Task,
    examples: Sequence[Example],
    limits: BatchLimits,
    compute: ComputeType,
    beat: Callable[[], None] = _nothing,
    gang: Gang = ALONE,
) -> StepLoss:
    """Returns the mean loss over some rows, without learning from them.

    The processes of a gang take turns at the parts, and all get the same answer.
    """
    device = _device(model)
    totals = Totals()
    total = LossTotal(totals)
    with measuring(model, device), autocast(compute, device):
        for start in range(0, len(examples), _ROWS_AT_ONCE):
            parts = task.parts(examples[start : start + _ROWS_AT_ONCE], limits)
            totals.add(parts)
            for first in range(0, len(parts), gang.size):
                is_own = first + gang.rank < len(parts)
                # Without one of its own a process computes another's again: a sharded model needs all of them.
                loss = task.loss(model, parts[first + gang.rank if is_own else first].to(device))
                total.add(loss.sum.item(), loss, counts=is_own)
                beat()
    return total.result(gang)


def complete(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_tokens: frozenset[int],
    compute: ComputeType,
    beat: Callable[[], None] = _nothing,
    agree: Callable[[torch.Tensor], torch.Tensor] = lambda tokens: tokens,
) -> list[list[int]]:
    """Continues some prompts together, each time with the likeliest token.

    Args:
        model: A causal language model.
        prompts: Token ids of each prompt, at least one.
        max_new_tokens: Most tokens of a completion, >= 1.
        end_tokens: Tokens that end a completion; they are left out of it.
        compute: Format of the products.
        beat: Called after each token.
        agree: Makes the next tokens those of all processes that hold the model together.

    Returns:
        The completions' token ids, in the order of the prompts.
    """
    if not prompts:
        return []
    device = _device(model)
    longest = max(map(len, prompts))
    input_ids_BT = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    position_ids_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    completions: list[list[int]] = [[] for _ in prompts]
    open_lines = set(range(len(prompts)))
    cache = None
    with measuring(model, device), autocast(compute, device):
        for _ in range(max_new_tokens):
            output = model(
                input_ids=input_ids_BT,
                attention_mask=mask_BT,
                position_ids=position_ids_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            beat()
            input_ids_BT = agree(output.logits[:, -1].argmax(-1, keepdim=True))
            tokens = input_ids_BT[:, 0].tolist()
            open_lines = {line for line in open_lines if tokens[line] not in end_tokens}
            for line in open_lines:
                completions[line].append(tokens[line])
            if not open_lines:
                break
            mask_BT = torch.cat([mask_BT, torch.ones_like(input_ids_BT)], dim=1)
            position_ids_BT = position_ids_BT[:, -1:] + 1
    return completions


def _device(model: Any) -> torch.device:
    return torch.device(next(model.parameters()).device)
