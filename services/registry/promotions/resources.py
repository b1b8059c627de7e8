"""Promotions as plain values; times are microseconds since 1970 in UTC."""

import json
from dataclasses import dataclass
from enum import StrEnum

from tuneforge.manifest import Manifest
from tuneforge.names import ModelVersionName
from tuneforge.promotion_paths import matching

REGISTRY = "registry"
"""Actor of what the registry found out itself."""
MANIFEST_NAME = "tuneforge-manifest.json"
"""The file that makes a copy visible."""


class PromotionState(StrEnum):
    """State of a promotion; the values are those of the contract without their prefix."""

    NOT_PROMOTED = "NOT_PROMOTED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETING = "DELETING"

    @property
    def has_place(self) -> bool:
        """Whether its destination is, or may be, in use."""
        return self in {PromotionState.IN_PROGRESS, PromotionState.COMPLETED, PromotionState.DELETING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A version's place in the deploy location."""

    version: ModelVersionName
    path: str
    destination: str
    state: PromotionState
    patterns: tuple[str, ...]
    num_files: int
    size_bytes: int
    digest: str
    """Of the manifest of the files that are copied."""
    sequence: int
    """Number of its last change, from 1; 0: it was never promoted."""
    message: str = ""
    actor: str
    create_time_us: int
    update_time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionChange:
    """One change of a promotion's state."""

    sequence: int
    state: PromotionState
    actor: str
    reason: str
    message: str
    time_us: int


def selected(manifest: Manifest, patterns: tuple[str, ...]) -> Manifest | None:
    """Returns the manifest of the files that the patterns fit; None when they fit none."""
    names = set(matching((file.path for file in manifest.files), patterns))
    files = [file for file in manifest.files if file.path in names]
    return Manifest.of(files) if files else None


def visible_manifest(version: ModelVersionName, manifest: Manifest) -> bytes:
    """Returns the content of the file that makes a copy visible: equal copies have equal bytes."""
    files = [{"path": file.path, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in manifest.files]
    content = {"version": str(version), "digest": manifest.digest, "files": files}
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def copy_label(version: ModelVersionName, digest: str) -> bytes:
    """Returns what is enough to know a copy by, for `is_same_copy`."""
    return json.dumps({"version": str(version), "digest": digest}).encode()


def is_same_copy(found: bytes, expected: bytes) -> bool:
    """Returns whether two visible manifests, or labels, are those of the same version and files."""
    try:
        one, other = json.loads(found), json.loads(expected)
        return all(one[key] == other[key] for key in ("version", "digest"))
    except (ValueError, KeyError, TypeError):
        return False
