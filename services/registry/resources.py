"""What the registry keeps, as plain values: data sets, models, their versions, aliases and their moves.

Times are microseconds since 1970 in UTC. How these become messages is in `wire.py`, how they become rows in `store.py`.
"""

from dataclasses import dataclass
from enum import StrEnum

from tuneforge.manifest import Manifest
from tuneforge.names import AliasName, DatasetName, DatasetVersionName, ModelName, ModelVersionName

LONGEST_DESCRIPTION = 4096
"""Characters; enough for a page of text, too little to hide a file in."""
LONGEST_REASON = 1024
"""Characters of the reason for a move of an alias."""


class RowShape(StrEnum):
    """What the rows of a data set look like; the values are those of the contract without their prefix."""

    MESSAGES = "MESSAGES"
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    INSTRUCTION = "INSTRUCTION"


class ArtifactKind(StrEnum):
    """What a model version is; the values are those of the contract without their prefix."""

    MODEL = "MODEL"
    ADAPTER = "ADAPTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A data set or a model: a name under which versions grow."""

    name: DatasetName | ModelName
    description: str
    create_time_us: int
    creator: str
    latest: int = 0
    """Number of the newest version; 0 when there is none."""

    @property
    def collection_id(self) -> str:
        """The last part of its name."""
        return self.name.dataset if isinstance(self.name, DatasetName) else self.name.model


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetContent:
    """What was found in the files of a data set version."""

    manifest: Manifest
    shape: RowShape
    rows: int
    """How many there are, over all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable state of a data set."""

    name: DatasetVersionName
    content: DatasetContent
    create_time_us: int
    creator: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points to one version of a model."""

    name: AliasName
    version: int
    sequence: int
    """Number of its last move, from 1."""
    update_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """The wish to point an alias to a version."""

    name: AliasName
    version: int
    etag: str
    """The etag it must have; `absent`: it must not exist; empty: whatever it is."""
    reason: str
    actor: str
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """One move of an alias that took place."""

    sequence: int
    from_version: int
    """0 for the first move."""
    to_version: int
    actor: str
    reason: str
    time_us: int
