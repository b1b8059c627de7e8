"""Bytes of what a run holds for certain, by arithmetic over shapes: weights, adapters, optimiser state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.defaults import LORA_RANK
from tuneforge.specs.freezing import count_layers, is_frozen
from tuneforge.specs.spec import (
    ComputeType,
    FullMethod,
    LoraMethod,
    MergeMethod,
    Optimizer,
    QloraMethod,
    Quantization,
    RewardModelTask,
    TrainingSpec,
)

# NF4: 4 bits a weight, one 8-bit scale a block of 64, one float32 scale of scales a 256 blocks (arXiv 2305.14314, 3).
NF4_BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)
NF4_SINGLE_BYTES_PER_WEIGHT = 0.5 + 4 / 64
# LLM.int8: a byte a weight; its float32 scale for each output is less than a hundredth of that.
PACKED_BYTES: Mapping[Quantization, float] = {
    Quantization.NF4: NF4_BYTES_PER_WEIGHT,
    Quantization.NF4_SINGLE: NF4_SINGLE_BYTES_PER_WEIGHT,
    Quantization.INT8: 1.01,
}
SMALLEST_8BIT = 4096
"""Numbers of the smallest weight whose moments are kept in 8 bits."""
FP32 = 4
BF16 = 2
HALF = frozenset({ComputeType.BF16, ComputeType.FP16})
"""Formats of two bytes."""
_VOCABULARY_HEAD = "lm_head"
_STORED = {"F64": 8, "F32": FP32, "BF16": BF16, "F16": BF16}


def adapter_parameters(lora: LoraMethod, architecture: Architecture) -> int:
    """Returns the number of adapter weights: rank x (inputs + outputs) for each target layer, DoRA's magnitudes too."""
    return sum(math.prod(shape) for shape in _adapter_shapes(lora, architecture))


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


def moving_shapes(spec: TrainingSpec, architecture: Architecture) -> list[tuple[int, ...]]:
    """Returns the shapes of the weights that the optimiser moves."""
    if isinstance(spec.method, MergeMethod):
        return []
    head = _reward_head(spec, architecture)
    if spec.lora is not None:
        return [*_adapter_shapes(spec.lora, architecture), *head]
    frozen = spec.method.freeze_layers if isinstance(spec.method, FullMethod) else 0
    tensors = _base_tensors(spec, architecture)
    return [*(tensor.shape for tensor in tensors if not is_frozen(tensor.name, frozen)), *head]


def _base_tensors(spec: TrainingSpec, architecture: Architecture) -> list[TensorShape]:
    """Returns the weights of the base that a run has: a reward model has its own head in place of the vocabulary's."""
    if not isinstance(spec.task, RewardModelTask):
        return list(architecture.tensors)
    return [tensor for tensor in architecture.tensors if not tensor.name.startswith(_VOCABULARY_HEAD)]


def _reward_head(spec: TrainingSpec, architecture: Architecture) -> list[tuple[int, ...]]:
    _, hidden, _ = block_sides(architecture)
    return [(1, hidden)] if isinstance(spec.task, RewardModelTask) else []


def optimizer_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the bytes of the optimiser's state, exact but for single counters."""
    per_weight = _STATE_BYTES[spec.optimization.optimizer.unpaged]
    return sum(per_weight(shape) for shape in moving_shapes(spec, architecture))


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


def block_sides(architecture: Architecture) -> tuple[int, int, int]:
    """Returns the number of blocks, their width, and the width inside their feed-forward part; zeros without blocks."""
    tensors = [tensor for tensors in architecture.linear_layers().values() for tensor in tensors]
    inputs = [input_side(tensor, architecture) for tensor in tensors]
    depth = count_layers([tensor.name for tensor in architecture.tensors])
    # What goes into most layers is the model's width, what goes into the last one of the feed-forward part its inside.
    return depth, max((min(tensor.shape) for tensor in tensors), default=0), max(inputs, default=0)


def input_side(tensor: TensorShape, architecture: Architecture) -> int:
    """Returns how many inputs a linear layer has."""
    return tensor.shape[0] if architecture.class_name.startswith("GPT2") else tensor.shape[1]


def weights_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the bytes of all weights of the base in the formats that a run keeps them in."""
    packed, matrices = _packed_names(spec, architecture), _matrices(architecture)
    head = sum(math.prod(shape) for shape in _reward_head(spec, architecture)) * FP32
    kept = (_kept_bytes(tensor, spec, packed, matrices) for tensor in _base_tensors(spec, architecture))
    return round(sum(kept)) + head


def mapped_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the bytes of the base's files that stay in memory beside their converted weights, on a host.

    A file is mapped, and its pages count as resident as long as one weight is used as it lies in the file. The kernel
    takes them back when memory is short.
    """
    if _stored_format(architecture) != _loaded_format(spec, architecture):
        return 0
    packed, matrices = _packed_names(spec, architecture), _matrices(architecture)
    loaded = _loaded_format(spec, architecture)
    is_converted = [
        _kept_bytes(tensor, spec, packed, matrices) != tensor.size * loaded for tensor in architecture.tensors
    ]
    if all(is_converted):
        return 0
    return sum(tensor.size * loaded for tensor, is_it in zip(architecture.tensors, is_converted, strict=True) if is_it)


def loading_bytes(spec: TrainingSpec, architecture: Architecture) -> int:
    """Returns the most bytes that are held while a base is loaded: its files, and its weights as they are loaded."""
    stored, loaded = _stored_format(architecture), _loaded_format(spec, architecture)
    return architecture.parameters * (stored if stored == loaded else stored + loaded)


def _kept_bytes(tensor: TensorShape, spec: TrainingSpec, packed: frozenset[str], matrices: frozenset[str]) -> float:
    """Returns the bytes of one weight as a run keeps it (see `precision` of the engine)."""
    if tensor.name in packed and isinstance(spec.method, QloraMethod):
        return tensor.size * PACKED_BYTES[spec.method.quantization]
    depth = spec.method.freeze_layers if isinstance(spec.method, FullMethod) else 0
    is_still = spec.lora is not None or is_frozen(tensor.name, depth)
    is_halved = is_still and spec.compute in HALF and tensor.name.rpartition(".")[0] in matrices
    return tensor.size * (BF16 if is_halved else FP32)


def _matrices(architecture: Architecture) -> frozenset[str]:
    """Returns the names of the layers that are matrices: of these the bias has the format of the weight."""
    found = (tensor for tensor in architecture.tensors if len(tensor.shape) == 2)
    return frozenset(
        tensor.name.rpartition(".")[0]
        for tensor in found
        if tensor.is_in_block or tensor.name.startswith(_VOCABULARY_HEAD)
    )


def _packed_names(spec: TrainingSpec, architecture: Architecture) -> frozenset[str]:
    if not isinstance(spec.method, QloraMethod):
        return frozenset()
    return frozenset(tensor.name for tensors in architecture.linear_layers().values() for tensor in tensors)


def _stored_format(architecture: Architecture) -> int:
    return max((_STORED.get(tensor.dtype, FP32) for tensor in architecture.tensors), default=FP32)


def _loaded_format(spec: TrainingSpec, architecture: Architecture) -> int:
    is_kept = spec.lora is not None and spec.compute is ComputeType.BF16
    return BF16 if is_kept and _stored_format(architecture) == BF16 else FP32
