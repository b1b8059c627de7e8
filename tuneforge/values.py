"""Small values that several resources share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Self


class Word(StrEnum):
    """A state or kind from the wire; a word that this release does not know yet becomes `UNKNOWN`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:  # noqa: ARG003 - the signature is that of Enum
        return cls.__members__.get("UNKNOWN")


class FaultClass(Word):
    """Whose fault a failure is."""

    UNKNOWN = "UNKNOWN"
    USER = "USER"
    """The spec, the data or the model: the same input fails again."""
    INFRASTRUCTURE = "INFRASTRUCTURE"
    """A machine, a process or a network: the same input may well succeed next time."""


class ArtifactKind(Word):
    """What the files of a model version are."""

    UNKNOWN = "UNKNOWN"
    MODEL = "MODEL"
    """A whole model."""
    ADAPTER = "ADAPTER"
    """An adapter, of use with its base only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRef:
    """A version and the digest that its bytes must have."""

    version: str
    """`projects/{project}/models|datasets/{id}/versions/{version}`."""
    digest: str
    """Digest of its manifest, 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something that was started ended badly."""

    reason: str
    """A stable word, e.g. `OUT_OF_MEMORY`; all of them stand in `tuneforge.errors`."""
    message: str
    """What is wrong, for a person."""
    cure: str
    """What to do about it, for a person."""
    fault: FaultClass
    """Whose fault it is."""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """All that varies in `message`, by key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of a run, as it stands in a version."""

    num_events: int
    """How many events the job had when its result was handed over."""
    head: str
    """Head of the chain over them, 64 lower-case hexadecimal digits."""
