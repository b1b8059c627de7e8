"""Peak memory of one attempt, by plain arithmetic over shapes; loads nothing.

Weights, adapters, gradients, optimiser state and the copy for checkpoints are exact up to allocator rounding
(`state_sizes`). Activations follow Korthikanti et al. (arXiv 2205.05198, eq. 2, without the attention matrix, which
fused attention does not keep), with the constants of this engine; `docs/memory.md` has them beside what was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from tuneforge.specs.architecture import Architecture
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import (
    ActivationRecompute,
    FullMethod,
    LoraMethod,
    MergeMethod,
    PreferenceTask,
    QloraMethod,
    RewardModelTask,
    TrainingSpec,
)
from tuneforge.specs.state_sizes import (
    BF16,
    FP32,
    HALF,
    adapter_parameters,
    block_sides,
    input_side,
    loading_bytes,
    mapped_bytes,
    moving_shapes,
    optimizer_bytes,
    weights_bytes,
)

__all__ = ["MARGIN", "MemoryEstimate", "adapter_parameters", "estimate"]

HOST_OVERHEAD_BYTES: Final = 430_000_000
"""Python, torch and the libraries beside it in a worker that has made its first step on a CPU."""
DEVICE_OVERHEAD_BYTES: Final = 800_000_000
"""CUDA's context and the workspaces of its libraries."""
DRIVER_BYTES: Final = 3_000_000_000
"""What CUDA keeps of the host's memory for one process, its libraries among it."""
MARGIN: Final = 0.15
"""Share of an estimate that a run may lie beside it: that of 24 and more measured runs, see `docs/memory.md`."""
CHUNK_TOKENS: Final = 1024
"""Supervised tokens whose logits the engine holds at once: 12 bytes for each and each word of the vocabulary (0.6 GB
with 49,152 words). More are computed in chunks, whose logits are computed again in the backward pass."""
COMPARED_LOGITS_BYTES: Final = 512 * 1024**2
"""Most bytes of logits that the engine keeps while it compares a merged model with its adapter."""
COMPARED_TOKENS: Final = 4096
"""Most tokens that it compares them on."""
COMPARED_ROW_TOKENS: Final = 1024
"""Most of these that are of one row."""
_LOGIT_BYTES: Final = {BF16: 10, FP32: 12}
"""Logits in the format of the products and in float32, and their gradients, by the size of a number in products."""
_TOKENS_AT_ONCE: Final = {"lora": 512, "other": 1024, "device": 8192}
"""Tokens that the engine computes at once where a spec leaves it the choice (`resolution`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Predicted peak memory of one attempt in bytes, by part: of the device, or of the host where there is none.

    Of several nodes that hold a part of the weights each: what the first one needs, which needs most.
    """

    weights_bytes: int
    """Frozen and moving weights."""
    adapter_bytes: int
    """Adapters."""
    gradients_bytes: int
    """Gradients of the weights that move."""
    optimizer_bytes: int
    """State of the optimiser."""
    activations_bytes: int
    """Activations and logits of one micro-batch at `max_tokens`, every token of it learned from; of shards, the weights
    that are whole meanwhile; of a merge, what comparing takes."""
    overhead_bytes: int = HOST_OVERHEAD_BYTES
    """Libraries and allocator."""
    snapshot_bytes: int = 0
    """Copy of weights that move and of the optimiser's state, on the host, from which checkpoints are written."""
    mapped_bytes: int = 0
    """Pages of the base's files that stay beside their converted weights; the kernel takes them back when it must."""
    loading_bytes: int = 0
    """What loading the base, or comparing a merged model, needs beyond the peak of training; mostly 0."""
    host_bytes: int = 0
    """Peak of the host's memory beside an accelerator; 0: there is none, and all else is the host's."""
    lowest_bytes: int = 0
    """The peak lies above this; 0: not said."""
    highest_bytes: int = 0
    """The peak lies below this: what an attempt is granted; 0: not said."""
    runs: int = 0
    """Measured runs that the figures were corrected by; 0: arithmetic alone."""

    @property
    def state_bytes(self) -> int:
        """What is held for certain, whatever is computed."""
        return (
            self.weights_bytes + self.adapter_bytes + self.gradients_bytes + self.optimizer_bytes + self.snapshot_bytes
        )

    @property
    def total_bytes(self) -> int:
        """The sum."""
        return self.state_bytes + self.activations_bytes + self.overhead_bytes + self.mapped_bytes + self.loading_bytes


def estimate(spec: TrainingSpec, architecture: Architecture, *, on_cpu: bool | None = None) -> MemoryEstimate:
    """Predicts the peak memory of one attempt.

    Args:
        spec: A valid spec, with or without defaults. Precision AUTO counts as float32, the larger one.
        architecture: Of the base.
        on_cpu: Whether it computes on the host; None: only where the spec asks for no device.
    """
    spec = with_defaults(spec, architecture)
    if on_cpu is None:
        on_cpu = spec.resources.devices_per_node == 0
    parts = shards(spec)
    moving = sum(math.prod(shape) for shape in moving_shapes(spec, architecture))
    optimizer = optimizer_bytes(spec, architecture)
    adapters = (adapter_parameters(spec.lora, architecture) if spec.lora else 0) * FP32
    # Of shards the first process puts together what is saved, and copies that.
    snapshot = (moving * FP32 + optimizer) * (2 if parts > 1 else 1)
    loading, mapped = loading_bytes(spec, architecture), mapped_bytes(spec, architecture)
    found = MemoryEstimate(
        weights_bytes=-(-weights_bytes(spec, architecture) // parts),
        adapter_bytes=-(-adapters // parts),
        gradients_bytes=-(-moving * FP32 // parts),
        optimizer_bytes=-(-optimizer // parts),
        activations_bytes=_computing_bytes(spec, architecture, on_cpu=on_cpu),
        overhead_bytes=HOST_OVERHEAD_BYTES if on_cpu else DEVICE_OVERHEAD_BYTES,
        snapshot_bytes=snapshot if on_cpu else 0,
        mapped_bytes=mapped if on_cpu and parts == 1 else 0,
        host_bytes=0 if on_cpu else HOST_OVERHEAD_BYTES + DRIVER_BYTES + snapshot + loading,
    )
    if on_cpu:
        # At the end the first process loads the base again, beside its shards.
        held = found.weights_bytes + found.adapter_bytes + found.optimizer_bytes if parts > 1 else 0
        later = loading + held
        if spec.merge is not None:  # the run's own state is gone by then, and nothing is packed
            compared = _comparison_bytes(spec, architecture, on_cpu=on_cpu)
            later = max(later, architecture.parameters * FP32 + adapters + compared)
        found = replace(found, loading_bytes=max(0, HOST_OVERHEAD_BYTES + later - found.total_bytes))
    return with_interval(found, low=1 - MARGIN, high=1 + MARGIN)


def shards(spec: TrainingSpec) -> int:
    """Returns how many processes hold a part each of the weights, their gradients and states; 1: each holds all."""
    is_whole = isinstance(spec.method, QloraMethod | MergeMethod)  # packed weights are not sharded
    return 1 if is_whole else max(1, spec.resources.nodes)


def with_interval(found: MemoryEstimate, *, low: float, high: float) -> MemoryEstimate:
    """Returns an estimate with the interval that its peak lies in, never below what is held for certain.

    Args:
        found: The estimate.
        low: Its lower end as a share of the sum, <= 1.
        high: Its upper end as a share of the sum, >= 1.
    """
    return replace(
        found,
        lowest_bytes=max(found.state_bytes, round(found.total_bytes * low)),
        highest_bytes=max(found.state_bytes, round(found.total_bytes * high)),
    )


def _computing_bytes(spec: TrainingSpec, architecture: Architecture, *, on_cpu: bool) -> int:
    """Returns what is held while a micro-batch is computed, or while a merged model is compared."""
    if not architecture.linear_layers():
        return 0
    if isinstance(spec.method, MergeMethod):
        return _comparison_bytes(spec, architecture, on_cpu=on_cpu)
    found = _activations_bytes(spec, architecture, on_cpu=on_cpu)
    return found + (_gathered_bytes(spec, architecture) if shards(spec) > 1 else 0)


def _gathered_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns what a process holds whole while it computes: all outside the blocks, a block and the next one."""
    depth, *_ = block_sides(architecture)
    blocks = sum(tensor.size for tensor in architecture.tensors if tensor.is_in_block)
    whole = architecture.parameters - blocks + 2 * blocks // max(1, depth)
    has_gradients = isinstance(spec.method, FullMethod)
    return whole * FP32 * (2 if has_gradients else 1)


def _comparison_bytes(spec: TrainingSpec, architecture: Architecture, *, on_cpu: bool) -> int:
    """Returns what comparing a merged model takes beside one model in float32: the other's logits, and a row."""
    _, hidden, inner = block_sides(architecture)
    tokens, vocabulary = min(spec.data.max_tokens, COMPARED_ROW_TOKENS), _vocabulary(architecture)
    kept = min(COMPARED_LOGITS_BYTES, COMPARED_TOKENS * vocabulary * FP32) if on_cpu else 0
    # Nothing is kept for a backward pass. The logits of a row, and what two of them are compared by.
    return kept + tokens * (20 * hidden + 4 * inner + 4 * vocabulary) * FP32


def _vocabulary(architecture: Architecture) -> int:
    return max((tensor.shape[0] for tensor in architecture.tensors if len(tensor.shape) == 2), default=0)


def _activations_bytes(spec: TrainingSpec, architecture: Architecture, *, on_cpu: bool) -> int:
    layers = architecture.linear_layers()
    depth, hidden, inner = block_sides(architecture)
    tokens = tokens_at_once(spec, on_cpu=on_cpu)
    is_half = spec.compute in HALF
    item = BF16 if is_half else FP32
    block = (20 * hidden + 4 * inner) * item
    if is_half and spec.lora is not None:
        # An adapter's input is kept once more in the format of the products, for each layer of its own.
        targets = spec.lora.target_modules or tuple(layers)
        block += BF16 * sum(input_side(layers[name][0], architecture) for name in targets if name in layers)
    kept = {
        # Beside what is kept, one block while it is recomputed.
        ActivationRecompute.SELECTIVE: depth * (8 * hidden + 2 * inner) * item + block,
        ActivationRecompute.FULL: depth * 2 * hidden * item + block,
    }.get(spec.optimization.recompute, depth * block)
    casts = architecture.parameters * BF16 if is_half and isinstance(spec.method, FullMethod) else 0
    # A reward model has one output for a text in place of logits.
    chunk = 0 if isinstance(spec.task, RewardModelTask) else min(tokens, CHUNK_TOKENS)
    return tokens * kept + chunk * _vocabulary(architecture) * _LOGIT_BYTES[item] + casts


def tokens_at_once(spec: TrainingSpec, *, on_cpu: bool) -> int:
    """Returns how many tokens a micro-batch has at most; a pair has two rows."""
    in_row = 2 if isinstance(spec.task, PreferenceTask | RewardModelTask) else 1
    longest, rows = spec.data.max_tokens * in_row, spec.optimization.rows_per_micro_batch
    if rows:
        return longest * min(rows, spec.optimization.rows_per_step or rows)
    if not on_cpu:
        budget = _TOKENS_AT_ONCE["device"]
    else:
        is_plain = isinstance(spec.method, LoraMethod) and not isinstance(spec.method, QloraMethod)
        budget = _TOKENS_AT_ONCE["lora" if is_plain else "other"]
    return max(longest, min(budget, longest * (spec.optimization.rows_per_step or 1)))
