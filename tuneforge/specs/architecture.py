"""What is known of a model without loading it: its class, its configuration and the shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShape:
    """Shape of one weight."""

    name: str
    """Its name in the file, e.g. `model.layers.0.self_attn.q_proj.weight`."""
    shape: tuple[int, ...]
    """Its sides, outermost first."""
    dtype: str
    """Its number format as safetensors names it, e.g. `BF16`."""

    @property
    def is_in_block(self) -> bool:
        """Whether it belongs to one of the numbered blocks."""
        return any(part.isdigit() for part in self.name.split("."))

    @property
    def size(self) -> int:
        """Number of weights in it."""
        product = 1
        for side in self.shape:
            product *= side
        return product


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What is known of a model without loading it."""

    class_name: str
    """Class in the model's configuration, e.g. `LlamaForCausalLM`."""
    config: Mapping[str, object]
    """The model's `config.json`."""
    tensors: tuple[TensorShape, ...]
    """Shapes of all weights."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence in tokens that the configuration allows; `None` when it does not say."""
        value = self.config.get("max_position_embeddings", self.config.get("n_positions"))
        return value if isinstance(value, int) else None

    def linear_layers(self) -> dict[str, tuple[TensorShape, ...]]:
        """Returns the two-dimensional weights of the decoder blocks by module name (e.g. `q_proj`)."""
        layers: dict[str, list[TensorShape]] = {}
        for tensor in self.tensors:
            parts = tensor.name.split(".")
            if tensor.is_in_block and parts[-1] == "weight" and len(tensor.shape) == 2:
                layers.setdefault(parts[-2], []).append(tensor)
        return {name: tuple(tensors) for name, tensors in layers.items()}
