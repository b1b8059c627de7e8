"""What is known of keeping a version, and what a deletion did."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tuneforge.names import DatasetVersionName, InvalidName, ModelVersionName, project_of

LONGEST_PIN_REASON = 200
LONGEST_REASON = 1024
LONGEST_OWNER = 64
MOST_HELD = 100
"""Versions in one call."""
MOST_HOLDERS_NAMED = 100
SHORTEST_UPLOAD_KEPT_S = 60
LONGEST_UPLOAD_KEPT_S = 90 * 86400

VersionName = DatasetVersionName | ModelVersionName
Sight = Callable[[str], bool]
"""Whether who asks may know of a project, by its id."""


class HolderKind(StrEnum):
    """Why something is kept; the values are those of the contract without their prefix."""

    ALIAS = "ALIAS"
    PROMOTION = "PROMOTION"
    VERSION = "VERSION"
    GATE_POLICY = "GATE_POLICY"
    PIN = "PIN"
    JOB = "JOB"
    DEPLOYMENT = "DEPLOYMENT"


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """What needs a version."""

    name: str
    """Resource name; empty where who asks may not know it."""
    kind: HolderKind

    def seen(self, sight: Sight) -> "Holder":
        """Returns it as somebody sees it: of a thing in another's project there is the kind, and no name."""
        return self if sight(project_of(self.name)) else Holder("", self.kind)


@dataclass(frozen=True, slots=True)
class Hold:
    """That a job or a deployment of another service needs a version."""

    holder: str
    version: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Pin:
    """That a version is to be kept."""

    reason: str
    actor: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Retention:
    """What keeps a version, and until when."""

    name: VersionName
    pins: tuple[Pin, ...]
    expire_time_us: int | None
    holders: tuple[Holder, ...]
    """All of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What a call deleted."""

    name: str
    actor: str
    reason: str
    time_us: int
    num_versions: int


def parse_version(text: str) -> VersionName:
    """Reads the name of a version of a model or a data set.

    Raises:
        InvalidName: It is neither.
    """
    if "/datasets/" in text:
        return DatasetVersionName.parse(text)
    if "/models/" in text:
        return ModelVersionName.parse(text)
    raise InvalidName(text, f"{ModelVersionName.pattern} or {DatasetVersionName.pattern}")
