"""Where blobs live: what a folder and an S3 bucket have in common, and what a place in them is called.

A place is used once. Bytes that come again, after they were deleted or from another project at the same moment, get a
place of their own; which one counts is a row (`services/registry/tables/blobs.py`). So a deletion that is late, or is
repeated after a crash, can never meet bytes that somebody relies on.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1024 * 1024
"""Largest piece of a transfer: a quarter of the largest message, and as fast as larger ones."""
LARGEST_BLOB_BYTES = 2**40
"""1 TiB: above any weight file; a larger size is a mistake in the caller's units."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing of the home shows it."""

    place: str
    size_bytes: int
    modified_s: float
    """Seconds since 1970."""


class Source(Protocol):
    """Stored bytes, open for reading in pieces."""

    def read(self) -> bytes:
        """Returns the next piece, at most `CHUNK_BYTES`; empty at the end and after `close`."""

    def close(self) -> None:
        """Ends the reading; waits for a read that runs."""


class BlobStore(Protocol):
    """A home of blobs. All functions block, and raise `ServiceError` for what the home does."""

    def prepare(self) -> None:
        """Makes what is missing, and finds out what the home can."""

    def claim(self, owner: str) -> None:
        """Makes sure that no other registry uses this home; before anything of it is removed for want of a row.

        Args:
            owner: Name of this registry's database, the same for ever.

        Raises:
            ServiceError: `STORAGE_MISCONFIGURED`: it belongs to another one.
        """

    def keep(self, file: Path, place: str, sha256: str) -> None:
        """Stores a verified file so that it survives a loss of power; it may be moved or copied.

        Args:
            file: On the local disk.
            place: From `new_place`.
            sha256: Of its content.
        """

    def open(self, place: str, offset: int, size_bytes: int) -> Source:
        """Opens stored bytes for reading from an offset.

        Raises:
            ServiceError: `BLOB_DAMAGED`: nothing is there.
        """

    def holds(self, place: str, size_bytes: int) -> bool:
        """Returns whether as many bytes lie at a place; not whether they are the right ones."""

    def delete(self, place: str) -> None:
        """Removes what lies at a place; nothing there is as good."""

    def listing(self) -> Iterator[StoredObject]:
        """Yields everything that lies in the home."""

    def local_path(self, place: str) -> Path | None:
        """Returns where a place is on the local disk; None when bytes have to be fetched first."""


def new_place(sha256: str) -> str:
    """Returns a place for a content, never used before: `<first two digits>/<sha256>.<8 random digits>`."""
    return f"{sha256[:2]}/{sha256}.{secrets.token_hex(4)}"


def digest_of_place(place: str) -> str:
    """Returns the digest that a place is named by; empty when the name is not one of ours."""
    name = place.rpartition("/")[2].partition(".")[0]
    return name if len(name) == 64 and place.startswith(f"{name[:2]}/{name}") else ""
