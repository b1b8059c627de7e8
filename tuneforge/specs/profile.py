"""What a model needs to be served: a stated rule of thumb beside arithmetic over its shapes.

The rule is that of the profiles which deployment tools read: weights times bytes, 5 % for adapters, 30 % on top, and a
partition a quarter larger. It looks at nothing but the number of weights, so `serving_memory` says beside it what the
shapes say: weights as they lie, keys and values of one sequence of full length, libraries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tuneforge.specs.architecture import Architecture
from tuneforge.specs.spec import LoraMethod
from tuneforge.specs.state_sizes import adapter_parameters

OVERHEAD_BYTES: Final = 700_000_000
"""Python, torch and the libraries beside it in a process that serves."""
BYTES_PER_PARAMETER: Final[Mapping[str, float]] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""Precision -> bytes of one weight."""
OVERHEAD_FACTOR: Final = 1.3
ADAPTER_SHARE: Final = 0.05
PARTITION_FACTOR: Final = 1.25
SMALLEST_GB: Final = 0.01
"""Least memory that is told: two decimals would make nothing of a small model."""
METHODS: Final = ("lora", "qlora", "full")

_PRECISION_OF_DTYPE: Final = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)B(?![a-zA-Z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The profile of one version."""

    model_id: str
    base_model_id: str
    fine_tuning_method: str
    """One of `METHODS`; empty for an import."""
    precision: str
    """A key of `BYTES_PER_PARAMETER`."""
    memory_gb: float
    """By `formula`, in 10^9 bytes."""
    recommended_partition_gb: float
    parameters: str
    """Size as people write it, e.g. `7B`."""
    parameter_count: int
    formula: str
    """The rule with its numbers."""
    lora_config: Mapping[str, Any] | None = None
    quantization_info: Mapping[str, Any] | None = None
    training_info: Mapping[str, Any] | None = None
    merge_info: Mapping[str, Any] | None = None
    """Set for a merged model: how its adapter was trained, and how far it is from it."""

    def to_json(self) -> str:
        """Returns the document `aim_profile.json`; what is not known is left out."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        kept = {name: value for name, value in content.items() if value not in (None, "")}
        # A method is always named, so that every profile can be checked in the same way.
        kept.setdefault("fine_tuning_method", "none")
        return json.dumps(kept, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFacts:
    """What a profile is reckoned from."""

    model_id: str
    base_model_id: str
    method: str
    precision: str
    parameter_count: int
    """Weights of the whole model; 0 lets the size in the base's id count."""
    lora_config: Mapping[str, Any] | None = None
    quantization_info: Mapping[str, Any] | None = None
    training_info: Mapping[str, Any] | None = field(default=None)
    merge_info: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """What serving takes, in bytes."""

    weights_bytes: int
    adapter_bytes: int
    cache_bytes: int
    """Keys and values of one sequence of the longest length."""
    overhead_bytes: int = OVERHEAD_BYTES

    @property
    def total_bytes(self) -> int:
        """The sum."""
        return self.weights_bytes + self.adapter_bytes + self.cache_bytes + self.overhead_bytes


def size_in_id(model_id: str) -> tuple[str, float] | None:
    """Returns the size that an id names, as text and in 10^9 weights; None when it names none.

    It is the number right before a capital B: `Qwen2.5-7B-Instruct` is 7B. `8x7B` is eight times that.
    """
    found = _SIZE.search(model_id)
    if found is None:
        return None
    times, number = found.groups()
    return found.group(0), float(number) * (int(times) if times else 1)


def size_text(parameters: int) -> str:
    """Returns a number of weights as people write it: `135M`, `7B`, `1.5B`."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters >= unit:
            return (
                f"{parameters / unit:.1f}".removesuffix(".0") + name
                if parameters < 10 * unit
                else (f"{parameters / unit:.0f}{name}")
            )
    return str(parameters)


def rule_memory_gb(billions: float, bytes_per_parameter: float, method: str) -> float:
    """Returns the memory by the rule, in 10^9 bytes, two decimals.

    Args:
        billions: Weights in 10^9, > 0.
        bytes_per_parameter: See `BYTES_PER_PARAMETER`.
        method: One of `METHODS`, or empty for a model that was not tuned here.
    """
    whole = billions * bytes_per_parameter
    if method == "lora":
        needed = whole * (1 + ADAPTER_SHARE)
    elif method == "qlora":
        needed = billions * BYTES_PER_PARAMETER["int4"] + whole * ADAPTER_SHARE
    else:
        needed = whole
    return max(SMALLEST_GB, round(needed * OVERHEAD_FACTOR, 2))


def partition_gb(memory_gb: float) -> float:
    """Returns the partition to ask for, in 10^9 bytes, two decimals."""
    return round(memory_gb * PARTITION_FACTOR, 2)


def profile(facts: ProfileFacts) -> Profile:
    """Reckons the profile of a version.

    Raises:
        KeyError: The precision is not known.
        ValueError: Neither the number of weights nor a size in the base's id is there.
    """
    named = size_in_id(facts.base_model_id)
    if facts.parameter_count > 0:
        billions = facts.parameter_count / 1e9
    elif named is not None:
        billions = named[1]
    else:
        raise ValueError(f"{facts.base_model_id!r} names no size, and the number of weights is not given")
    size = BYTES_PER_PARAMETER[facts.precision]
    # Merged, nothing is left of adapters and of 4 bits.
    rule = "" if facts.merge_info else facts.method
    memory = rule_memory_gb(billions, size, rule)
    return Profile(
        model_id=facts.model_id,
        base_model_id=facts.base_model_id,
        fine_tuning_method=facts.method,
        precision=facts.precision,
        memory_gb=memory,
        recommended_partition_gb=partition_gb(memory),
        parameters=named[0] if named else size_text(facts.parameter_count),
        parameter_count=facts.parameter_count,
        formula=formula(billions, size, rule),
        lora_config=facts.lora_config,
        quantization_info=facts.quantization_info,
        training_info=facts.training_info,
        merge_info=facts.merge_info,
    )


def formula(billions: float, bytes_per_parameter: float, method: str) -> str:
    """Returns the rule with its numbers filled in; P stands for 10^9 weights, m for bytes of one."""
    numbers = f"P = {billions:.4g}, m = {bytes_per_parameter:g}"
    if method == "lora":
        return f"P x m x 1.05 x 1.3 with {numbers}"
    if method == "qlora":
        return f"(P x 0.5 + P x m x 0.05) x 1.3 with {numbers}"
    return f"P x m x 1.3 with {numbers}"


def precision_of(architecture: Architecture) -> str:
    """Returns the precision in which most weights of a model lie; `fp32` when nothing is known of them."""
    sizes: dict[str, int] = {}
    for tensor in architecture.tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    most = max(sizes, key=lambda dtype: sizes[dtype], default="F32")
    return _PRECISION_OF_DTYPE.get(most, "fp32")


def serving_memory(architecture: Architecture, precision: str, lora: LoraMethod | None) -> ServingMemory:
    """Reckons what serving one sequence at a time takes.

    Args:
        architecture: Of the whole model.
        precision: A key of `BYTES_PER_PARAMETER`.
        lora: The adapter on it; None where there is none. Adapters are kept in float32.
    """
    size = BYTES_PER_PARAMETER[precision]
    adapter = 4 * adapter_parameters(lora, architecture) if lora else 0
    return ServingMemory(
        weights_bytes=round(architecture.parameters * size),
        adapter_bytes=adapter,
        cache_bytes=_cache_bytes(architecture, max(size, 2.0)),
    )


def _cache_bytes(architecture: Architecture, item_bytes: float) -> int:
    """Two vectors for each token and layer: as wide as the groups of heads."""
    config = architecture.config
    layers = _number(config, "num_hidden_layers", "n_layer")
    heads = _number(config, "num_attention_heads", "n_head")
    width = _number(config, "hidden_size", "n_embd")
    if not (layers and heads and width):
        return 0
    side = _number(config, "head_dim") or width // heads
    groups = _number(config, "num_key_value_heads") or heads
    return round(2 * (architecture.max_positions or 0) * layers * groups * side * item_bytes)


def _number(config: Mapping[str, object], *names: str) -> int:
    values = (config.get(name) for name in names)
    return next((value for value in values if isinstance(value, int)), 0)
