"""The files of versions on this node, bounded: what no worker uses, and was not used for longest, makes room.

A worker holds what it uses by a lock that the kernel takes back when its process ends, however it ends:
`users/<digest>` has the blobs of an artifact, and its time is that of the last use. Whoever fetches makes room first,
under a lock of its own that lasts as long as removing files does. A kill in the middle leaves files that the next one
removes, and never half an artifact: a folder is renamed before it is emptied. Layout and fetching are
`services/modelkit/artifacts.py`. Needs no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from services.modelkit.artifacts import BlobSource, artifact_folder, discard, fetch
from tuneforge.manifest import Manifest

SHARE_OF_FREE = 0.8
"""Share of the free bytes, and of those that the cache holds already, that it may take where no limit is set."""
_EVICTED, _DOOMED, _GROWING = ".evicted-", ".doomed-", ".growing-"
_FORGOTTEN_S = 3600.0
"""Age of a half-made folder after which its maker is dead: making one is a matter of links."""


@dataclass(slots=True)
class NodeCache:
    """The cache as one worker sees it.

    Args:
        folder: The cache; made when missing.
        limit_bytes: Most bytes that it holds; what is in use counts and stays. 0: no limit.
        say: Told, as a sentence, what was removed or that nothing could be.
    """

    folder: Path
    limit_bytes: int = 0
    say: Callable[[str], None] = lambda _: None
    _held: dict[str, int] = field(default_factory=dict)

    def hold(self, manifest: Manifest) -> Path | None:
        """Keeps an artifact until this process ends, or `release`; returns its folder if it is there already."""
        place = artifact_folder(self.folder, manifest.digest)
        if manifest.digest in self._held:
            return place if place.is_dir() else None
        note = json.dumps([file.sha256 for file in manifest.files]).encode()
        users = self.folder / "users"
        users.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder, fcntl.LOCK_SH):  # nothing is removed between the look and the hold
            descriptor = os.open(users / manifest.digest, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._held[manifest.digest] = descriptor
            if os.fstat(descriptor).st_size != len(note):  # new, or cut off by a full disk; else it is the same
                os.pwrite(descriptor, note, 0)
            os.utime(descriptor)
            return place if place.is_dir() else None

    def fetch(self, manifest: Manifest, blobs: BlobSource) -> Path:
        """Brings an artifact, holds it, and makes room for it first; errors as for `artifacts.fetch`."""
        place = self.hold(manifest)
        if place is not None:
            return place
        self._make_room(manifest)
        return fetch(manifest, blobs, self.folder)

    def release(self, manifest: Manifest) -> None:
        """Lets an artifact go."""
        if (descriptor := self._held.pop(manifest.digest, None)) is not None:
            os.close(descriptor)

    def discard(self, manifest: Manifest) -> None:
        """Takes an artifact out that is damaged or needed no more; not while somebody looks for what may go."""
        with _locked(self.folder, fcntl.LOCK_SH):
            discard(manifest, self.folder)

    def _make_room(self, manifest: Manifest) -> None:
        if not self.limit_bytes:
            return
        with _locked(self.folder, fcntl.LOCK_EX):
            found = _Found.look(self.folder)
            missing = {file.sha256: file.size_bytes for file in manifest.files if file.sha256 not in found.names}
            removed, freed = found.shrink(self.limit_bytes - sum(missing.values()))
        if removed:
            self.say(
                f"Removed {removed} versions from the node's cache, {freed / 1e9:.3f} GB, that were not used longest."
            )
        over = found.total + sum(missing.values()) - self.limit_bytes
        if over > 0:
            self.say(f"The node's cache is {over / 1e9:.3f} GB above its limit: the rest of it is in use.")


@dataclass(slots=True)
class _Found:
    """What lies in a cache whose lock this process has."""

    folder: Path
    artifacts: dict[str, dict[int, int]]
    """By digest of those that nobody holds, the one that was not used for longest first: bytes by inode."""
    links: Counter[int]
    """Files of artifacts by inode."""
    blobs: dict[int, Path]
    """Blobs by inode, and parts of them that were being fetched."""
    needed: set[int]
    """Inodes of blobs that somebody needs, now or in a moment."""
    sizes: dict[int, int]
    """Bytes by inode of all that is there."""
    names: set[str]
    """Digests of the blobs that are there."""

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.sizes.values())

    @classmethod
    def look(cls, folder: Path) -> _Found:
        """Reads a cache, and removes what a kill has left."""
        _remove_leftovers(folder / "artifacts")
        needed, held = _in_use(folder)
        sizes: dict[int, int] = {}
        free: dict[str, tuple[float, dict[int, int]]] = {}
        links: Counter[int] = Counter()
        for place in _folders(folder / "artifacts"):
            files = {(each := path.stat()).st_ino: each.st_size for path in place.rglob("*") if path.is_file()}
            links.update(files.keys())  # with the mapping itself, its values would be added
            sizes |= files
            if place.name not in held:
                free[place.name] = (_last_use(folder, place), files)
        blobs = {}
        for path in (folder / "blobs").glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # a part that is whole now, and has another name
                seen = path.stat()
                sizes[seen.st_ino], blobs[seen.st_ino] = seen.st_size, path
        return cls(
            folder=folder,
            artifacts={digest: free[digest][1] for digest in sorted(free, key=lambda digest: free[digest][0])},
            links=links,
            blobs=blobs,
            needed={inode for inode, path in blobs.items() if path.name.removeprefix(".")[:64] in needed},
            sizes=sizes,
            names={path.name for path in blobs.values()},
        )

    def shrink(self, limit: int) -> tuple[int, int]:
        """Removes blobs of no artifact, then artifacts, until at most so many bytes are left.

        Returns:
            How many artifacts were removed, and the bytes of all that was.
        """
        before, removed = self.total, 0
        if self.total > limit:
            self._drop(list(self.blobs))
        for digest, files in self.artifacts.items():
            if self.total <= limit:
                break
            place = artifact_folder(self.folder, digest)
            doomed = place.with_name(f"{_EVICTED}{digest}")
            place.rename(doomed)
            shutil.rmtree(doomed)
            (self.folder / "users" / digest).unlink(missing_ok=True)
            self.links.subtract(files.keys())
            self._drop(list(files))
            removed += 1
        return removed, before - self.total

    def _drop(self, inodes: list[int]) -> None:
        """Removes what no artifact has and nobody needs."""
        for inode in inodes:
            if not self.links[inode] and inode not in self.needed:
                if (path := self.blobs.pop(inode, None)) is not None:
                    path.unlink()
                del self.sizes[inode]


def limit_from(free_bytes: int, cached_bytes: int) -> int:
    """Returns the limit where none is set, from the free bytes of the disk and those that the cache holds."""
    return int(SHARE_OF_FREE * (free_bytes + cached_bytes))


def cached_bytes(folder: Path) -> int:
    """Returns how many bytes a cache holds, files of several versions once."""
    seen = {}
    for place, _, names in os.walk(folder):  # it passes over folders that are gone by now
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = Path(place, name).lstat()
                seen[found.st_ino] = found.st_size
    return sum(seen.values())


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, how)
        yield


def _in_use(folder: Path) -> tuple[set[str], set[str]]:
    """Returns the blobs that living workers need and the artifacts that they hold; removes notes of what is gone."""
    needed, held = set[str](), set[str]()
    for path in (folder / "users").glob("*"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.add(path.name)
                with contextlib.suppress(ValueError):  # of a worker that found the disk full just now, and ends
                    needed.update(json.loads(file.read()))
            else:
                if not artifact_folder(folder, path.name).is_dir():
                    path.unlink()
    return needed, held


def _last_use(folder: Path, place: Path) -> float:
    try:
        return (folder / "users" / place.name).stat().st_mtime
    except FileNotFoundError:  # of a release that did not note it
        return place.stat().st_mtime


def _folders(artifacts: Path) -> list[Path]:
    return [path for path in artifacts.glob("*") if not path.name.startswith(".")]


def _remove_leftovers(artifacts: Path) -> None:
    for path in artifacts.glob(".*"):
        with contextlib.suppress(FileNotFoundError):  # its maker has just given it its name
            is_old = path.name.startswith(_GROWING) and path.stat().st_mtime < time.time() - _FORGOTTEN_S
            if is_old or path.name.startswith((_EVICTED, _DOOMED)):
                shutil.rmtree(path, ignore_errors=True)
