"""How much a run computes: its steps, its tokens, and the floating-point operations of a token."""

from __future__ import annotations

import math

from tuneforge.specs.architecture import Architecture
from tuneforge.specs.spec import ActivationRecompute, FullMethod, TrainingSpec
from tuneforge.specs.state_sizes import adapter_parameters, block_sides

CHARACTERS_PER_TOKEN = 4.0
"""Of running text in the vocabularies that the supported models have."""
FRAME_TOKENS = 16
"""Special tokens and roles around the texts of a row."""
# A pass over a matrix costs 2 operations a weight and token. Forward, and backward to what stands before it: 2 passes;
# a weight that moves costs a third one. Causal attention compares a token with half of its row, and its backward pass
# costs 2.5 times its forward pass (it computes the scores again).
_FROZEN, _MOVING, _ATTENTION, _AGAIN = 4.0, 6.0, 3.5, 2.0


def flops_per_token(spec: TrainingSpec, architecture: Architecture, row_tokens: float) -> float:
    """Returns the floating-point operations behind one token of training.

    Args:
        spec: With defaults.
        architecture: Of the base.
        row_tokens: Tokens of a row.
    """
    linears = architecture.linear_layers()
    blocks = sum(tensor.size for tensors in linears.values() for tensor in tensors)
    depth, hidden, _ = block_sides(architecture)
    vocabulary = max((tensor.shape[0] for tensor in architecture.tensors if len(tensor.shape) == 2), default=0)
    attention = 2.0 * row_tokens * hidden * depth
    adapters = adapter_parameters(spec.lora, architecture) if spec.lora else 0
    per_weight = _MOVING if isinstance(spec.method, FullMethod) else _FROZEN
    found = per_weight * (blocks + hidden * vocabulary) + _ATTENTION * attention + _MOVING * adapters
    if spec.optimization.recompute is ActivationRecompute.FULL:
        found += _AGAIN * blocks + attention
    return found


def steps_of(rows: int, rows_per_step: int, *, epochs: float | None, max_steps: int | None) -> int:
    """Returns the steps of a whole run, >= 1.

    Args:
        rows: Rows to learn from, >= 1.
        rows_per_step: Rows behind one optimiser step, >= 1.
        epochs: Passes over the rows, > 0; a fraction ends in the middle of a pass.
        max_steps: Optimiser steps, >= 1; counts alone when given.
    """
    if max_steps is not None:
        return max_steps
    whole, fraction = divmod(epochs or 0.0, 1.0)
    in_pass = math.ceil(rows / rows_per_step)
    return max(1, int(whole) * in_pass + math.ceil(round(fraction * rows / rows_per_step, 9)))


def row_tokens_of(characters: float, max_tokens: int) -> float:
    """Returns about how many tokens a row of so many characters has, at most `max_tokens`."""
    return min(float(max_tokens), characters / CHARACTERS_PER_TOKEN + FRAME_TOKENS)
