"""What the files of a model say of its architecture: plain values, imported by the examiner's process too."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One weight of a safetensors file."""

    name: str
    shape: tuple[int, ...]
    """Sides, outermost first."""
    dtype: str
    """As safetensors names it, e.g. `BF16`."""

    @property
    def size(self) -> int:
        """Number of its elements."""
        size = 1
        for side in self.shape:
            size *= side
        return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the registry reads from a model's configuration and from the headers of its weight files."""

    class_name: str
    """E.g. `LlamaForCausalLM`."""
    config_json: str
    """`config.json` as it stands."""
    tensors: tuple[Tensor, ...]
    """All weights, by name; of a configuration alone, those that it describes."""
    seed: int | None = None
    """Seed of the weights of a configuration alone; None where there are weight files."""
