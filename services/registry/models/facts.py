"""What is known of a model or a version beside its files: fixed facts, and those that people may change.

Fixed: task, framework, architecture, number of weights. Changeable, by a field mask and an etag: description, tags,
license, domain, metadata.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.collections import LONGEST_DESCRIPTION
from tuneforge.v1 import models_pb2

CHANGEABLE = ("description", "tags", "license", "domain", "metadata")
"""Paths of an update mask."""
MOST_TAGS = 32
MOST_KEYS = 64
LONGEST_LABEL = 63
LONGEST_VALUE = 4096
LONGEST_WORD = 200
"""Of a license or a domain."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_./-]{0,62}")
_BOUNDS = ((100_000_000, models_pb2.SIZE_CLASS_SMALL), (500_000_000, models_pb2.SIZE_CLASS_BASE),
           (2_000_000_000, models_pb2.SIZE_CLASS_LARGE))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts of a model (its own, without the fixed ones) or of a version."""

    task: str = ""
    framework: str = ""
    architecture: str = ""
    kind: str = ""
    """`MODEL` or `ADAPTER`; empty for a model itself."""
    parameters: int = 0
    size_bytes: int = 0
    description: str = ""
    license: str = ""
    domain: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0
    """Grows by one with each change; 0: nothing was ever set."""
    update_time_us: int = 0

    @property
    def etag(self) -> str:
        """Changes with each change."""
        return f"r{self.revision}"


Described = models_pb2.Model | models_pb2.ModelVersion
"""The messages with facts that may change."""


def size_class(parameters: int) -> "models_pb2.SizeClass.ValueType":
    """Returns how large a model of so many weights is; UNSPECIFIED for 0."""
    if parameters <= 0:
        return models_pb2.SIZE_CLASS_UNSPECIFIED
    return next((each for bound, each in _BOUNDS if parameters < bound), models_pb2.SIZE_CLASS_XL)


def size_bounds(wanted: int) -> tuple[int, int]:
    """Returns the least number of weights of a size class, and the first that is too many."""
    edges = [1, *(bound for bound, _ in _BOUNDS), 2**62]
    return edges[wanted - 1], edges[wanted]


def described(message: Described, prefix: str) -> Facts:
    """Returns the changeable facts that a message gives.

    Args:
        message: As sent.
        prefix: Where it stands in the request, e.g. `version.`.

    Raises:
        ServiceError: `INVALID_FIELD` with all that are out of range.
    """
    if violations := list(_violations(message, prefix)):
        raise invalid_fields(violations)
    return Facts(
        description=message.description,
        license=message.license,
        domain=message.domain,
        tags=tuple(sorted(set(message.tags))),
        metadata=dict(message.metadata),
    )


def check_mask(paths: Sequence[str]) -> None:
    """Refuses an empty mask, and one that names what never changes.

    Raises:
        ServiceError: `INVALID_FIELD` with all wrong paths.
    """
    known = ", ".join(f"`{path}`" for path in CHANGEABLE)
    violations = [
        FieldViolation("update_mask", f"names `{path[:80]}`, which cannot be changed; give some of {known}")
        for path in paths
        if path not in CHANGEABLE
    ]
    if not paths:
        violations = [FieldViolation("update_mask", f"is empty; give some of {known}")]
    if violations:
        raise invalid_fields(violations[:20])


def changed(facts: Facts, wanted: Facts, paths: Sequence[str], *, etag: str, time_us: int, name: str) -> Facts:
    """Returns facts after an update.

    Args:
        facts: As they are.
        wanted: What the request gives.
        paths: Checked paths of the mask.
        etag: As sent; empty: whatever is there.
        time_us: When.
        name: Of the resource, for the error.

    Raises:
        ServiceError: `ETAG_MISMATCH`.
    """
    if etag and etag != facts.etag:
        raise ServiceError(
            Reason.ETAG_MISMATCH,
            f"{name} has the etag {facts.etag}, not {etag[:80]}: somebody changed it meanwhile",
            metadata={"name": name, "etag": facts.etag},
        )
    values = {path: getattr(wanted, path) for path in set(paths)}
    return replace(facts, **values, revision=facts.revision + 1, update_time_us=time_us)


def _violations(message: Described, prefix: str) -> Iterator[FieldViolation]:
    limits = (("description", LONGEST_DESCRIPTION), ("license", LONGEST_WORD), ("domain", LONGEST_WORD))
    for name, longest in limits:
        found = len(getattr(message, name))
        if found > longest:
            yield FieldViolation(f"{prefix}{name}", f"has {found} characters; at most {longest} are taken")
        if "\0" in getattr(message, name):
            yield FieldViolation(f"{prefix}{name}", "has the character U+0000, which no database keeps; take it out")
    yield from _tag_violations(message, prefix)
    yield from _metadata_violations(message, prefix)


def _tag_violations(message: Described, prefix: str) -> Iterator[FieldViolation]:
    if len(message.tags) > MOST_TAGS:
        yield FieldViolation(f"{prefix}tags", f"has {len(message.tags)} entries; at most {MOST_TAGS} are taken")
    for tag in message.tags[:MOST_TAGS]:
        if not 1 <= len(tag) <= LONGEST_LABEL or not tag.isprintable() or tag != tag.strip():
            form = f"give 1 to {LONGEST_LABEL} printable characters without spaces at the ends"
            yield FieldViolation(f"{prefix}tags", f"has {tag[:80]!r}; {form}")


def _metadata_violations(message: Described, prefix: str) -> Iterator[FieldViolation]:
    if len(message.metadata) > MOST_KEYS:
        yield FieldViolation(f"{prefix}metadata", f"has {len(message.metadata)} keys; at most {MOST_KEYS} are taken")
    for key in sorted(message.metadata)[:MOST_KEYS]:
        if not _KEY.fullmatch(key):
            yield FieldViolation(f"{prefix}metadata", f"has the key {key[:80]!r}; give 1 to 63 of a-z 0-9 _ . / -")
        elif len(message.metadata[key]) > LONGEST_VALUE:
            found = len(message.metadata[key])
            yield FieldViolation(
                f"{prefix}metadata[{key}]", f"has {found} characters; at most {LONGEST_VALUE} are taken"
            )
        elif "\0" in message.metadata[key]:
            yield FieldViolation(f"{prefix}metadata[{key}]", "has the character U+0000; take it out")
