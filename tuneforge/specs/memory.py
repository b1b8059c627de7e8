"""Peak memory of one attempt, by plain arithmetic over shapes; loads nothing.

Weights, adapters, gradients and optimiser state are exact up to allocator rounding. Activations are an upper estimate
after Korthikanti et al. (arXiv 2205.05198, eq. 2, without the attention matrix, which fused attention does not keep).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuneforge.specs.defaults import LORA_RANK, with_defaults
from tuneforge.specs.freezing import is_frozen
from tuneforge.specs.spec import (
    ActivationRecompute,
    Architecture,
    ComputeType,
    FullMethod,
    LoraMethod,
    MergeMethod,
    Optimizer,
    QloraMethod,
    Quantization,
    TrainingSpec,
)

# NF4: 4 bits a weight, one 8-bit scale a block of 64, one float32 scale of scales a 256 blocks (arXiv 2305.14314, 3).
NF4_BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)
NF4_SINGLE_BYTES_PER_WEIGHT = 0.5 + 4 / 64
# LLM.int8: a byte a weight; its float32 scale for each output is less than a hundredth of that.
_PACKED_BYTES: Mapping[Quantization, float] = {
    Quantization.NF4: NF4_BYTES_PER_WEIGHT,
    Quantization.NF4_SINGLE: NF4_SINGLE_BYTES_PER_WEIGHT,
    Quantization.INT8: 1.01,
}
# Python, torch and the libraries beside it, as a warm worker shows them before it loads a model.
OVERHEAD_BYTES = 700_000_000
SMALLEST_8BIT = 4096
"""Numbers of the smallest weight whose moments are kept in 8 bits."""
FP32 = 4
BF16 = 2
_HALF = frozenset({ComputeType.BF16, ComputeType.FP16})
"""Formats of two bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Predicted peak memory of one attempt in bytes, by part."""

    weights_bytes: int
    """Frozen and moving weights."""
    adapter_bytes: int
    """Adapters."""
    gradients_bytes: int
    """Gradients of the weights that move."""
    optimizer_bytes: int
    """State of the optimiser."""
    activations_bytes: int
    """Activations of one micro-batch at `max_tokens`; an upper estimate."""
    overhead_bytes: int = OVERHEAD_BYTES
    """Libraries and allocator."""
    snapshot_bytes: int = 0
    """Copy of weights that move and of the optimiser's state, on the host, from which checkpoints are written."""

    @property
    def total_bytes(self) -> int:
        """The sum."""
        return (
            self.weights_bytes
            + self.adapter_bytes
            + self.gradients_bytes
            + self.optimizer_bytes
            + self.activations_bytes
            + self.overhead_bytes
            + self.snapshot_bytes
        )


def estimate(spec: TrainingSpec, architecture: Architecture) -> MemoryEstimate:
    """Predicts the peak memory of one attempt.

    Args:
        spec: A valid spec, with or without defaults. Precision AUTO counts as float32, the larger one.
        architecture: Of the base.
    """
    spec = with_defaults(spec, architecture)
    adapter = adapter_parameters(spec.lora, architecture) if spec.lora else 0
    moving = sum(math.prod(shape) for shape in _moving_shapes(spec, architecture))
    return MemoryEstimate(
        weights_bytes=_weights_bytes(spec, architecture),
        adapter_bytes=adapter * FP32,
        gradients_bytes=moving * FP32,
        optimizer_bytes=_optimizer_bytes(spec, architecture),
        activations_bytes=_activations_bytes(spec, architecture),
        snapshot_bytes=_snapshot_bytes(spec, architecture),
    )


def adapter_parameters(lora: LoraMethod, architecture: Architecture) -> int:
    """Returns the number of adapter weights: rank x (inputs + outputs) for each target layer, DoRA's magnitudes too."""
    return sum(math.prod(shape) for shape in _adapter_shapes(lora, architecture))


def _snapshot_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the bytes of the copy that checkpoints are written from; with accelerators it is not in their memory."""
    if spec.resources.devices_per_node != 0:
        return 0
    moving = sum(math.prod(shape) for shape in _moving_shapes(spec, architecture))
    return moving * FP32 + _optimizer_bytes(spec, architecture)


def _adapter_shapes(lora: LoraMethod, architecture: Architecture) -> list[tuple[int, ...]]:
    layers = architecture.linear_layers()
    rank = lora.rank or LORA_RANK
    shapes: list[tuple[int, ...]] = []
    for name in lora.target_modules or tuple(layers):
        for tensor in layers.get(name, ()):
            shapes += [(rank, side) for side in tensor.shape]
            if lora.use_dora:
                shapes.append((_outputs(tensor.shape, architecture),))
    return shapes


def _outputs(shape: tuple[int, ...], architecture: Architecture) -> int:
    """Returns how many outputs a linear layer has; GPT-2 keeps its weights with the inputs first."""
    return shape[-1] if architecture.class_name.startswith("GPT2") else shape[0]


def _moving_shapes(spec: TrainingSpec, architecture: Architecture) -> list[tuple[int, ...]]:
    """Returns the shapes of the weights that the optimiser moves."""
    if spec.lora is not None:
        return _adapter_shapes(spec.lora, architecture)
    if isinstance(spec.method, MergeMethod):
        return []
    frozen = spec.method.freeze_layers if isinstance(spec.method, FullMethod) else 0
    return [tensor.shape for tensor in architecture.tensors if not is_frozen(tensor.name, frozen)]


def _optimizer_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the bytes of the optimiser's state, exact but for single counters."""
    per_weight = _STATE_BYTES[spec.optimization.optimizer.unpaged]
    return sum(per_weight(shape) for shape in _moving_shapes(spec, architecture))


def _eight_bits(shape: tuple[int, ...]) -> int:
    """Two moments of one byte, a scale a block of 256, and two tables of 256 numbers; small weights in 32 bits."""
    size = math.prod(shape)
    if size < SMALLEST_8BIT:
        return 2 * FP32 * size
    return 2 * (size + FP32 * -(-size // 256) + FP32 * 256)


def _factored(shape: tuple[int, ...]) -> int:
    """One number a row and one a column; a vector has a whole second moment."""
    if len(shape) < 2:
        return FP32 * math.prod(shape)
    *outer, rows, columns = shape
    return FP32 * math.prod(outer) * (rows + columns)


_STATE_BYTES: Mapping[Optimizer, Callable[[tuple[int, ...]], int]] = {
    Optimizer.ADAMW: lambda shape: 2 * FP32 * math.prod(shape),
    Optimizer.SGD: lambda shape: FP32 * math.prod(shape),
    Optimizer.ADAMW_8BIT: _eight_bits,
    Optimizer.ADAFACTOR: _factored,
}


def _weights_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    total = architecture.parameters
    if isinstance(spec.method, QloraMethod):
        packed = sum(tensor.size for tensors in architecture.linear_layers().values() for tensor in tensors)
        return round(packed * _PACKED_BYTES[spec.method.quantization]) + (total - packed) * FP32
    if isinstance(spec.method, LoraMethod) and spec.compute in _HALF:
        return total * BF16
    return total * FP32


def _activations_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    layers = list(architecture.linear_layers().values())
    if not layers:
        return 0
    depth = max(len(tensors) for tensors in layers)
    sides = [min(tensor.shape) for tensors in layers for tensor in tensors]
    widths = [max(tensor.shape) for tensors in layers for tensor in tensors]
    hidden, inner = max(sides), max(widths)
    tokens = spec.data.max_tokens * (spec.optimization.rows_per_micro_batch or 1)
    vocabulary = max((tensor.shape[0] for tensor in architecture.tensors if len(tensor.shape) == 2), default=0)
    item = BF16 if spec.compute in _HALF else FP32
    block = 18 * hidden + 4 * inner
    kept = {
        ActivationRecompute.SELECTIVE: depth * (8 * hidden + 2 * inner) + block,  # and one block while it is recomputed
        ActivationRecompute.FULL: depth * 2 * hidden + block,
    }.get(spec.optimization.recompute, depth * block)
    return tokens * kept * item + tokens * vocabulary * 2 * FP32
