"""Versions of models as plain values; times are microseconds since 1970 in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.registry.models.facts import Facts
from tuneforge.names import ModelVersionName


class ArtifactKind(StrEnum):
    """What a model version is; the values are those of the contract without their prefix."""

    MODEL = "MODEL"
    ADAPTER = "ADAPTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The columns of a version's lineage by which versions are looked up; of imports only an adapter has a base."""

    job: str = ""
    base_version: str = ""
    dataset_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an examination of a version found."""

    passed: bool
    record: bytes
    """Serialised `tuneforge.v1.ValidationReport` without what is beside it."""
    number: int = 0
    """From 1; 0 before it is stored."""
    create_time_us: int = 0
    creator: str = ""
    roles: tuple[str, ...] = ()
    """Of the creator when it was stored."""


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
    facts: Facts = field(default_factory=Facts)
    """By which it is found; the changeable ones as they are now."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Final figures, for the table by which versions are sorted; the record has them too. Empty when read back."""
    report: Report | None = None
    """What the run's own checks found; None where there was no run. None when read back."""
    import_digest: str = ""
    """What tells an import from others of its model; empty for a publication."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable state of a model."""

    name: ModelVersionName
    content: ModelContent
    create_time_us: int
    creator: str
