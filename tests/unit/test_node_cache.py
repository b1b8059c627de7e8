"""The cache of a node stays below its limit: what nobody uses goes, oldest use first, and a kill leaves it whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.modelkit.artifacts import artifact_folder
from services.trainer.node_cache import NodeCache, cached_bytes, limit_from
from tuneforge.manifest import Manifest, ManifestFile, verify

ROOT = Path(__file__).parents[2]
KB = 1000
MARGIN = 2 * KB
"""Notes of who uses what."""


@dataclass
class Store:
    """Blobs in memory."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def artifact(self, *contents: bytes) -> Manifest:
        """Stores an artifact whose files have these contents."""
        files = []
        for index, content in enumerate(contents):
            sha256 = hashlib.sha256(content).hexdigest()
            self.blobs[sha256] = content
            files.append(ManifestFile(path=f"part/{index}.bin", sha256=sha256, size_bytes=len(content)))
        return Manifest.of(files)

    def download(self, sha256: str, size_bytes: int, dest: Path) -> None:
        """Brings a blob, unless it is there."""
        if not dest.exists():
            self.fetched.append(sha256)
            dest.write_bytes(self.blobs[sha256])
        assert dest.stat().st_size == size_bytes


def has(folder: Path, manifest: Manifest) -> bool:
    """Returns whether a cache has an artifact, which is then whole."""
    place = artifact_folder(folder, manifest.digest)
    if place.is_dir():
        verify(place, manifest)
    return place.is_dir()


def used(cache: NodeCache, store: Store, manifest: Manifest, at: int) -> None:
    """Uses an artifact at some time and lets it go."""
    cache.fetch(manifest, store)
    cache.release(manifest)
    os.utime(cache.folder / "users" / manifest.digest, (at, at))


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Room is made for what is fetched, and not more of it than needed; blobs that another artifact has stay."""
    store, said = Store(), list[str]()
    shared = b"s" * KB
    one, two, three, four = (store.artifact(shared, bytes([number]) * 10 * KB) for number in range(4))
    cache = NodeCache(tmp_path, 35 * KB, said.append)
    for at, manifest in ((300, one), (100, two), (200, three)):
        used(cache, store, manifest, at)
    assert all(has(tmp_path, each) for each in (one, two, three))
    used(cache, store, four, 400)
    assert [has(tmp_path, each) for each in (one, two, three, four)] == [True, False, True, True]
    assert cached_bytes(tmp_path) <= 31 * KB + MARGIN
    assert [each.partition(",")[0] for each in said] == ["Removed 1 versions from the node's cache"]
    store.fetched.clear()
    used(cache, store, two, 500)
    assert store.fetched == [two.files[1].sha256]


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """Another worker keeps its artifact and the blobs that it is about to link; the limit gives way, and says so."""
    store, said = Store(), list[str]()
    one, two = (store.artifact(bytes([number]) * 10 * KB) for number in range(2))
    other = NodeCache(tmp_path)
    other.fetch(one, store)
    waiting = store.artifact(b"w" * 10 * KB)
    other.hold(waiting)
    blob = tmp_path / "blobs" / waiting.files[0].sha256[:2] / waiting.files[0].sha256
    blob.parent.mkdir(parents=True, exist_ok=True)
    store.download(waiting.files[0].sha256, 10 * KB, blob)
    mine = NodeCache(tmp_path, 15 * KB, said.append)
    mine.fetch(two, store)
    assert has(tmp_path, one)
    assert has(tmp_path, two)
    assert blob.exists()
    assert "above its limit: the rest of it is in use" in said[-1]
    other.release(one)
    other.release(waiting)
    mine.fetch(store.artifact(b"n" * KB), store)
    assert not has(tmp_path, one)
    assert not blob.exists()
    assert has(tmp_path, two)


def test_a_kill_at_any_step_leaves_a_cache_that_is_whole(tmp_path: Path) -> None:
    """Whoever comes next finds whole artifacts or none, and brings the rest below the limit."""
    code = "import sys; from tests.unit.test_node_cache import kill_at_each_step as k; k(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, timeout=60)


def kill_at_each_step(place: str) -> None:
    """Does that in a process of its own: one with threads, as that of the tests is, cannot be forked safely."""
    store, step = Store(), 0
    old = [store.artifact(bytes([number]) * 10 * KB, b"s" * KB) for number in range(3)]
    new = store.artifact(b"n" * 25 * KB)
    is_killed = True
    while is_killed:
        step += 1
        folder = Path(place) / str(step)
        for at, manifest in enumerate(old):
            used(NodeCache(folder), store, manifest, 100 + at)
        is_killed = _killed_in_child(folder, store, new, step)
        assert [has(folder, each) for each in old[2:]] in ([True], [False])
        for manifest in (*old, new):
            has(folder, manifest)
        last = NodeCache(folder, 30 * KB)
        last.fetch(new, store)
        last.fetch(store.artifact(b"m"), store)
        assert has(folder, new)
        assert cached_bytes(folder) <= 30 * KB + MARGIN
        assert not list((folder / "artifacts").glob(".evicted-*"))
    assert step > 6


def _killed_in_child(folder: Path, store: Store, manifest: Manifest, step: int) -> bool:
    """Fetches with little room in a process that is killed before its n-th change on disk; returns whether it was."""
    pid = os.fork()
    if pid == 0:
        left = step

        def audit(event: str, _arguments: object) -> None:
            nonlocal left
            if event in {"os.rename", "os.remove", "os.rmdir"}:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        try:
            NodeCache(folder, 30 * KB).fetch(manifest, store)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_others_move_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part becomes a blob and a half-made folder an artifact between the look at their names and the one at them."""
    store, cache = Store(), NodeCache(tmp_path, 15 * KB)
    old, new = (store.artifact(bytes([number]) * 10 * KB) for number in range(2))
    used(cache, store, old, 100)
    blobs, artifacts = tmp_path / "blobs" / "ab", tmp_path / "artifacts"
    blobs.mkdir(exist_ok=True)
    for gone in (blobs / f".{'a' * 64}.part", artifacts / ".growing-1"):
        gone.symlink_to(tmp_path / "nothing")  # a name with nothing behind it
    (artifacts / ".doomed-1" / "files").mkdir(parents=True)  # of a worker that was killed as it discarded something
    cache.fetch(new, store)
    assert (has(tmp_path, old), has(tmp_path, new)) == (False, True)
    assert not (artifacts / ".doomed-1").exists()
    look, vanishing = os.scandir, artifacts / ".growing-2"
    vanishing.mkdir()

    def scandir(path: str) -> Any:
        if str(path) == str(vanishing):
            vanishing.rmdir()
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert 10 * KB <= cached_bytes(tmp_path) <= 10 * KB + MARGIN
    assert not vanishing.exists()


def test_a_note_that_a_full_disk_cut_off_is_written_anew(tmp_path: Path) -> None:
    """Who holds an artifact says which blobs it needs, whatever an earlier worker could write of that."""
    store, cache, other = Store(), NodeCache(tmp_path, 5 * KB), NodeCache(tmp_path)
    manifest = store.artifact(b"a" * KB, b"b" * KB)
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / manifest.digest).write_text('["0123')
    other.fetch(manifest, store)
    cache.fetch(store.artifact(b"c" * 4 * KB), store)
    assert has(tmp_path, manifest)


def test_nothing_is_discarded_while_room_is_made(tmp_path: Path) -> None:
    """Who looks for what may go finds all of it still there: a discard waits for the lock."""
    store, cache = Store(), NodeCache(tmp_path)
    manifest = store.artifact(b"a" * KB)
    cache.fetch(manifest, store)
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        discarding = threading.Thread(target=cache.discard, args=(manifest,))
        discarding.start()
        discarding.join(timeout=0.2)
        assert has(tmp_path, manifest)
    discarding.join()
    assert not has(tmp_path, manifest)


def test_a_share_of_the_disk_where_no_limit_is_set() -> None:
    """What is kept already counts as free: a restart gives the same limit."""
    assert limit_from(100, 0) == limit_from(60, 40) == 80
