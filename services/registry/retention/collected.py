"""The account of one run of the collector."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Collected:
    """What a run freed, or would free."""

    validate_only: bool
    expired_versions: int = 0
    held_versions: int = 0
    uploads: int = 0
    blobs: int = 0
    contents: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    failures: int = 0
