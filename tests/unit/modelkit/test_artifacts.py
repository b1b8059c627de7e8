"""Artifacts come into the cache once, whole or not at all, and what is damaged is found and brought anew."""

import mmap
import threading
from pathlib import Path

import pytest

from services.modelkit import artifacts
from services.modelkit.artifacts import LocalArtifact, artifact_folder, discard, fetch
from tests.support.tiny_model import make_tiny_model
from tuneforge.manifest import IntegrityError, Manifest, build, verify


class _FolderSource:
    """Blobs of the files of a folder; counts what it hands out and may break off."""

    def __init__(self, folder: Path) -> None:
        self.files = {file.sha256: folder / file.path for file in build(folder).files}
        self.handed_out: list[str] = []
        self.fail_after: int | None = None

    def download(self, sha256: str, size_bytes: int, dest: Path) -> None:
        if self.fail_after is not None and len(self.handed_out) >= self.fail_after:
            raise ConnectionError("the registry went away")
        if not dest.exists():
            assert self.files[sha256].stat().st_size == size_bytes
            self.handed_out.append(sha256)
            part = dest.with_name(f".{dest.name}.{threading.get_ident()}")
            part.write_bytes(self.files[sha256].read_bytes())
            part.replace(dest)


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> _FolderSource:
    return _FolderSource(make_tiny_model(tmp_path / "model"))


@pytest.fixture(name="manifest")
def _manifest(source: _FolderSource, tmp_path: Path) -> Manifest:
    return build(tmp_path / "model")


def test_an_artifact_is_fetched_once(source: _FolderSource, manifest: Manifest, tmp_path: Path) -> None:
    """The files come as the manifest says, and a second call moves nothing."""
    folder = fetch(manifest, source, tmp_path / "cache")
    verify(folder, manifest)
    moved = len(source.handed_out)
    assert fetch(manifest, source, tmp_path / "cache") == folder
    assert len(source.handed_out) == moved == len({file.sha256 for file in manifest.files})


def test_a_broken_fetch_leaves_no_artifact(source: _FolderSource, manifest: Manifest, tmp_path: Path) -> None:
    """A fetch that breaks off shows no half artifact, and the next one goes on where it stopped."""
    source.fail_after = 2
    with pytest.raises(ConnectionError):
        fetch(manifest, source, tmp_path / "cache")
    assert not artifact_folder(tmp_path / "cache", manifest.digest).exists()
    source.fail_after = None
    verify(fetch(manifest, source, tmp_path / "cache"), manifest)
    assert len(source.handed_out) == len(set(source.handed_out))


def test_versions_share_equal_files(source: _FolderSource, manifest: Manifest, tmp_path: Path) -> None:
    """A version with one other file takes only that file's space."""
    folder = fetch(manifest, source, tmp_path / "cache")
    other = Manifest.of(file for file in manifest.files if file.path != "generation_config.json")
    second = fetch(other, source, tmp_path / "cache")
    assert (folder / "model.safetensors").stat().st_ino == (second / "model.safetensors").stat().st_ino


def test_many_callers_at_once_get_one_artifact(source: _FolderSource, manifest: Manifest, tmp_path: Path) -> None:
    """Callers that race for the same manifest all get the whole artifact, and no leftovers stay."""
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(manifest, source, tmp_path / "cache"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {artifact_folder(tmp_path / "cache", manifest.digest)}
    verify(results[0], manifest)
    assert [path.name for path in (tmp_path / "cache" / "artifacts").iterdir()] == [manifest.digest]


def test_a_changed_byte_is_refused_by_name_and_cured(source: _FolderSource, manifest: Manifest, tmp_path: Path) -> None:
    """A damaged file in the cache is named when it is verified; discarded, it is brought anew."""
    folder = fetch(manifest, source, tmp_path / "cache")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    damaged = LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        damaged.verify()
    discard(manifest, tmp_path / "cache")
    discard(manifest, tmp_path / "cache")
    verify(fetch(manifest, source, tmp_path / "cache"), manifest)


@pytest.mark.parametrize("size", [0, 1, mmap.PAGESIZE, mmap.PAGESIZE + 1, 3 * mmap.PAGESIZE])
def test_a_file_is_checked_to_its_last_byte(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in pieces: the digest is that of the whole, and each byte counts."""
    monkeypatch.setattr(artifacts, "_PIECE_BYTES", mmap.PAGESIZE)
    (tmp_path / "weights").write_bytes(bytes(number % 251 for number in range(size)))
    manifest = build(tmp_path)
    found = LocalArtifact(folder=tmp_path, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    found.verify()
    for place in {0, size // 2, size - 1} if size else ():
        content = bytearray((tmp_path / "weights").read_bytes())
        content[place] ^= 1
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(IntegrityError, match="weights"):
            found.verify()
        content[place] ^= 1
        (tmp_path / "weights").write_bytes(content)
    found.verify()


def test_a_disk_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """The file is named and why; the process lives on."""
    (tmp_path / "weights").write_bytes(b"some")
    manifest, unreadable = build(tmp_path), Path("/proc/self/mem")  # address 0 answers as a broken disk does
    with pytest.raises(IntegrityError, match="weights: expected a readable file, found Input/output error"):
        verify(tmp_path, manifest, sha256=lambda _: artifacts._sha256(unreadable))


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    """Wherever the reading has come by then: the file is named, and the process lives on."""
    weights, begins = tmp_path / "weights", threading.Event()
    with weights.open("wb") as file:
        file.truncate(8 * artifacts._PIECE_BYTES)
    manifest = build(tmp_path)

    def cut() -> None:
        begins.wait()
        with weights.open("r+b") as file:
            file.truncate(1)

    def read(path: Path) -> str:
        begins.set()
        return artifacts._sha256(path)

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(IntegrityError, match="weights"):
        verify(tmp_path, manifest, sha256=read)
    cutting.join()
