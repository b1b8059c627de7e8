"""What a deploy location does, whatever it is made of."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1024 * 1024


class LocationProblem(Exception):
    """A copy cannot be made or removed; the text says why, for the operator."""


class Stopped(Exception):
    """The registry ends; the next one goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """One file of a copy."""

    path: str
    source: Path
    sha256: str
    size_bytes: int


class Location(Protocol):
    """A place where others read promoted versions. Methods block, and can be repeated after a kill at any moment."""

    def copy(self, destination: str, files: Iterable[CopiedFile], manifest: bytes, stopping: threading.Event) -> None:
        """Makes a copy and makes it visible; does nothing when the same copy is visible already.

        Args:
            destination: Where, as path parts joined by `/`.
            files: What.
            manifest: Content of the file that makes it visible.
            stopping: Set when the registry ends.

        Raises:
            LocationProblem: Bytes are not those of the manifest, something else is there, or nothing can be written.
            Stopped: The registry ends.
        """

    def withdraw(self, destination: str, manifest: bytes) -> str:
        """Makes a copy invisible and removes it; does nothing when none is visible.

        Args:
            destination: Where it is.
            manifest: Content or label of the file that makes it visible; another one is left alone.

        Returns:
            What could not be removed though it is invisible; empty when nothing is left.

        Raises:
            LocationProblem: It is still visible.
        """


def chunks_of(file: CopiedFile, stopping: threading.Event) -> Iterator[bytes]:
    """Yields the content of a source file, verified.

    Raises:
        LocationProblem: The content is not what the manifest says; found at its end.
        Stopped: The registry ends.
    """
    digest, size = hashlib.sha256(), 0
    with file.source.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            if stopping.is_set():
                raise Stopped
            digest.update(chunk)
            size += len(chunk)
            yield chunk
    if digest.hexdigest() != file.sha256 or size != file.size_bytes:
        raise LocationProblem(f"{file.path} does not have the digest that the version's manifest names")
