"""Peak memory of one attempt, by plain arithmetic over shapes; loads nothing.

Weights, adapters, gradients and optimiser state are exact up to allocator rounding. Activations are an upper estimate
after Korthikanti et al. (arXiv 2205.05198, eq. 2, without the attention matrix, which fused attention does not keep).
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneforge.specs.defaults import LORA_RANK, with_defaults
from tuneforge.specs.spec import (
    Architecture,
    ComputeType,
    FullMethod,
    LoraMethod,
    Optimizer,
    QloraMethod,
    TrainingSpec,
)

# NF4: 4 bits a weight, one 8-bit scale a block of 64, one float32 scale of scales a 256 blocks (arXiv 2305.14314, 3).
NF4_BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)
# Python, torch and the libraries beside it, as a warm worker shows them before it loads a model.
OVERHEAD_BYTES = 700_000_000
FP32 = 4
BF16 = 2


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
        )


def estimate(spec: TrainingSpec, architecture: Architecture) -> MemoryEstimate:
    """Predicts the peak memory of one attempt.

    Args:
        spec: A valid spec, with or without defaults. Precision AUTO counts as float32, the larger one.
        architecture: Of the base.
    """
    spec = with_defaults(spec, architecture)
    adapter = adapter_parameters(spec.lora, architecture) if spec.lora else 0
    moving = architecture.parameters if isinstance(spec.method, FullMethod) else adapter
    states = 2 if spec.optimization.optimizer is Optimizer.ADAMW else 1
    return MemoryEstimate(
        weights_bytes=_weights_bytes(spec, architecture),
        adapter_bytes=adapter * FP32,
        gradients_bytes=moving * FP32,
        optimizer_bytes=moving * FP32 * states,
        activations_bytes=_activations_bytes(spec, architecture),
    )


def adapter_parameters(lora: LoraMethod, architecture: Architecture) -> int:
    """Returns the number of adapter weights: rank x (inputs + outputs) for each target layer."""
    layers = architecture.linear_layers()
    names = lora.target_modules or tuple(layers)
    rank = lora.rank or LORA_RANK
    return sum(rank * sum(tensor.shape) for name in names for tensor in layers.get(name, ()))


def _weights_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    total = architecture.parameters
    if isinstance(spec.method, QloraMethod):
        packed = sum(tensor.size for tensors in architecture.linear_layers().values() for tensor in tensors)
        return round(packed * NF4_BYTES_PER_WEIGHT) + (total - packed) * FP32
    if isinstance(spec.method, LoraMethod) and spec.compute is ComputeType.BF16:
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
    item = BF16 if spec.compute is ComputeType.BF16 else FP32
    return tokens * depth * (18 * hidden + 4 * inner) * item + tokens * vocabulary * 2 * FP32
