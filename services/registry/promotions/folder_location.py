"""A folder as the deploy location: a copy is made beside it and renamed into place as a whole."""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from services.registry.promotions.location import CHUNK_BYTES, CopiedFile, LocationProblem, chunks_of
from services.registry.promotions.resources import MANIFEST_NAME, is_same_copy

STAGING = ".tuneforge-staging"
"""Folder below the location in which copies grow; on the same disk, so that a rename is all or nothing."""


class FolderLocation:
    """A folder, its path being the operator's.

    Args:
        root: The folder; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def copy(self, destination: str, files: Iterable[CopiedFile], manifest: bytes, stopping: threading.Event) -> None:
        """See `Location.copy`."""
        target = self._root / destination
        if target.exists():
            self._require_ours(target, manifest)
            return
        staging = self._staging(destination)
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            for file in files:
                _copy_file(file, staging / file.path, stopping)
            _write(staging / MANIFEST_NAME, manifest)
            for folder, _, _ in os.walk(staging):
                _sync(Path(folder))
            target.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(target)
            _sync(target.parent)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise LocationProblem(f"{destination} cannot be written: {error.strerror or error}") from error
        except LocationProblem:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def withdraw(self, destination: str, manifest: bytes) -> str:
        """See `Location.withdraw`."""
        target, staging = self._root / destination, self._staging(destination)
        try:
            if target.exists():
                self._require_ours(target, manifest)
                shutil.rmtree(staging, ignore_errors=True)
                staging.parent.mkdir(parents=True, exist_ok=True)
                target.rename(staging)
                _sync(target.parent)
        except OSError as error:
            raise LocationProblem(f"{destination} cannot be removed: {error.strerror or error}") from error
        try:
            if staging.exists():
                shutil.rmtree(staging)
        except OSError as error:
            return f"{staging.name} in {STAGING} cannot be removed: {error.strerror or error}"
        self._remove_empty_parents(target)
        return ""

    def _staging(self, destination: str) -> Path:
        return self._root / STAGING / hashlib.sha256(destination.encode()).hexdigest()[:32]

    def _require_ours(self, target: Path, manifest: bytes) -> None:
        """Refuses to go on when something else is in the place of a copy."""
        try:
            if is_same_copy((target / MANIFEST_NAME).read_bytes(), manifest):
                return
        except OSError:
            pass
        raise LocationProblem(f"{target.relative_to(self._root)} holds something else, which is left alone")

    def _remove_empty_parents(self, target: Path) -> None:
        with suppress(OSError):  # the first one that is not empty ends it
            for parent in target.parents:
                if parent == self._root:
                    return
                parent.rmdir()


def _copy_file(file: CopiedFile, target: Path, stopping: threading.Event) -> None:
    """Copies a file, syncs it and reads it back.

    Raises:
        LocationProblem: The source, or what is read back, is not what the manifest says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        for chunk in chunks_of(file, stopping):
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    digest = hashlib.sha256()
    with target.open("rb") as back:
        while chunk := back.read(CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        raise LocationProblem(f"{file.path} was not kept as it was written")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
