"""What stands in the graph: kinds of things by their names, roles of edges, limits."""

from dataclasses import dataclass
from enum import StrEnum

from tuneforge.names import InvalidName, project_of

MOST_BASES = 10_000
"""Bases below one version: a model retrained every hour from the one before for a year."""
MOST_ADAPTERS = 15
"""Adapters on top of each other: each is read at every load, and nobody meant more."""
LONGEST_REASON = 1024
"""Characters of the reason of a revocation."""


class Kind(StrEnum):
    """What a thing is; the values are those of the contract without their prefix."""

    DATASET_VERSION = "DATASET_VERSION"
    MODEL_VERSION = "MODEL_VERSION"
    JOB = "JOB"
    ALIAS = "ALIAS"
    PROMOTION = "PROMOTION"
    SOURCE = "SOURCE"


class Role(StrEnum):
    """What the parent was for the child; the values are those of the contract without their prefix."""

    BASE = "BASE"
    DATASET = "DATASET"
    VALIDATION = "VALIDATION"
    JOB = "JOB"
    PARENT = "PARENT"
    ALIAS = "ALIAS"
    PROMOTION = "PROMOTION"
    SOURCE = "SOURCE"


LEARNED = frozenset(Role) - {Role.VALIDATION}
"""Roles by which data comes into what was made: a run learns nothing from what it is validated on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A thing by its name."""

    name: str
    kind: Kind
    project: str
    """Id of its project; empty for a source outside."""
    collection: str
    """The data set or model of a version; empty for all else."""


_KINDS = {
    ("datasets", "versions"): Kind.DATASET_VERSION,
    ("models", "versions"): Kind.MODEL_VERSION,
    ("models", "aliases"): Kind.ALIAS,
}


def thing_of(name: str) -> Thing:
    """Returns what a name stands for: a resource of a project, or the address of a source outside."""
    try:
        project = project_of(name)
    except InvalidName:
        return Thing(name=name, kind=Kind.SOURCE, project="", collection="")
    parts = name.split("/")
    kind = _KINDS.get((parts[2], parts[4])) if len(parts) == 6 else None
    if kind is None:
        kind = Kind.JOB if len(parts) == 4 and parts[2] == "jobs" else Kind.PROMOTION
    is_version = kind in {Kind.DATASET_VERSION, Kind.MODEL_VERSION}
    return Thing(name=name, kind=kind, project=project, collection="/".join(parts[:4]) if is_version else "")
