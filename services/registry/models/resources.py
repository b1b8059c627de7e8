"""Versions of models as plain values; times are microseconds since 1970 in UTC."""

from dataclasses import dataclass
from enum import StrEnum

from tuneforge.names import ModelVersionName


class ArtifactKind(StrEnum):
    """What a model version is; the values are those of the contract without their prefix."""

    MODEL = "MODEL"
    ADAPTER = "ADAPTER"


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
    """All weights, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The columns of a model version's lineage by which versions are looked up; all empty for an import."""

    job: str = ""
    base_version: str = ""
    dataset_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContent:
    """All of a model version except what the store gives it: number, time and creator.

    `record` and `tensors` are serialised `tuneforge.v1.ModelVersion` messages, the second with the shapes of the
    weights alone. One after the other they make one message, and a list can leave the second out.
    """

    kind: ArtifactKind
    digest: str
    """Digest of the manifest."""
    size_bytes: int
    origin: Origin
    record: bytes
    tensors: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable state of a model."""

    name: ModelVersionName
    content: ModelContent
    create_time_us: int
    creator: str
