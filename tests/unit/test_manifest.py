"""Manifests: the same content is the same digest, and nothing that escapes or was changed gets through."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneforge.manifest import (
    IntegrityError,
    InvalidManifest,
    Manifest,
    ManifestFile,
    build,
    check_path,
    digest_of,
    sha256_file,
    verify,
)

SHA = "0" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small artifact."""
    (tmp_path / "b").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "b" / "weights.safetensors").write_bytes(b"w" * 100_000)
    (tmp_path / "empty").write_bytes(b"")
    return tmp_path


def test_the_digest_is_the_one_that_the_text_describes(folder: Path) -> None:
    """Anyone can compute the digest from the canonical form."""
    manifest = build(folder)
    assert [file.path for file in manifest.files] == ["b/weights.safetensors", "config.json", "empty"]
    lines = ["tuneforge-manifest-v1"]
    for file in manifest.files:
        content = (folder / file.path).read_bytes()
        lines.append(f"{hashlib.sha256(content).hexdigest()} {len(content)} {file.path}")
    assert manifest.digest == hashlib.sha256(("\n".join(lines) + "\n").encode()).hexdigest()
    assert manifest.size_bytes == 100_002
    assert manifest.file("empty") == ManifestFile("empty", sha256_file(folder / "empty"), 0)
    assert manifest.file("none") is None


def test_the_digest_of_a_known_artifact_never_changes() -> None:
    """A published digest stays valid for ever: this value must not be edited."""
    files = [ManifestFile("a", SHA, 1), ManifestFile("ä/b", "f" * 64, 2)]
    assert digest_of(files) == "989cf1e9711fb9d1c1b54a347133736f10d0047d94a51e60cb2cbc4926aebc51"


@settings(deadline=None)
@given(st.permutations([ManifestFile(path, SHA, 1) for path in ("a", "b/c", "b/d", "é", "z-1")]))
def test_the_order_of_files_does_not_matter(files: list[ManifestFile]) -> None:
    """A manifest is ordered by itself."""
    assert Manifest.of(files) == Manifest.of(sorted(files, key=lambda file: file.path))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a\\b",
        "C:x",
        "a\nb",
        "a\x00",
        "a" * 256,
        "a/" * 600 + "a",
        chr(0xD800),
    ],
)
def test_a_path_that_could_escape_or_forge_is_refused(path: str) -> None:
    """A path is relative, plain and inside the artifact."""
    with pytest.raises(InvalidManifest) as caught:
        check_path(path)
    assert caught.value.path == path


@pytest.mark.parametrize("path", ["a", "a/b.c", "ä ö", "...", "a..b", ".hidden/x"])
def test_an_ordinary_path_is_taken(path: str) -> None:
    """Names that only look odd are fine."""
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([ManifestFile("a", SHA, 1), ManifestFile("a", SHA, 1)], "twice"),
        ([ManifestFile("a", "X" * 64, 1)], "hexadecimal"),
        ([ManifestFile("a", SHA, -1)], "-1"),
        ([ManifestFile("a", SHA, 1), ManifestFile("a/b", SHA, 1)], "folder"),
    ],
)
def test_malformed_files_are_refused(files: list[ManifestFile], problem: str) -> None:
    """A manifest that no folder could hold is refused with the reason."""
    with pytest.raises(InvalidManifest, match=problem):
        Manifest.of(files)


def test_links_are_refused(folder: Path) -> None:
    """A symbolic link, to a file or a folder, and a pipe do not become part of an artifact."""
    manifest = build(folder)
    for target in ("config.json", "b", "/etc"):
        link = folder / "link"
        link.symlink_to(target)
        with pytest.raises(InvalidManifest, match="symbolic link"):
            build(folder)
        with pytest.raises(IntegrityError, match="symbolic link"):
            verify(folder, manifest)
        link.unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidManifest, match="regular"):
        build(folder)


def test_a_whole_folder_verifies(folder: Path) -> None:
    """What was built verifies, beside files that are excluded."""
    manifest = build(folder)
    (folder / "manifest.json").write_text(manifest.to_json())
    verify(folder, manifest, exclude={"manifest.json"})
    assert build(folder, exclude={"manifest.json"}) == manifest
    assert Manifest.from_json((folder / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize(
    ("path", "content", "found"),
    [
        ("config.json", b"[]", "sha256"),
        ("b/weights.safetensors", b"w", "1 bytes"),
        ("empty", None, "no file"),
        ("planted.bin", b"x", "does not list"),
    ],
)
def test_a_changed_folder_is_named_with_its_file(folder: Path, path: str, content: bytes | None, found: str) -> None:
    """The error names the file that is not what the manifest says."""
    manifest = build(folder)
    (folder / path).unlink(missing_ok=True)
    if content is not None:
        (folder / path).write_bytes(content)
    with pytest.raises(IntegrityError, match=found) as caught:
        verify(folder, manifest)
    assert caught.value.path == path
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_missing_folder_does_not_verify(tmp_path: Path) -> None:
    """No folder at all is an integrity error too."""
    with pytest.raises(IntegrityError, match="folder"):
        verify(tmp_path / "none", Manifest.of([]))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "[" * 100_000, '{"files": [{"path": "a"}], "digest": ""}', '{"files": [], "digest": "x"}'],
    ids=range(7),
)
def test_json_that_is_no_manifest_is_refused(text: str) -> None:
    """A broken or forged manifest file is told as such."""
    with pytest.raises(InvalidManifest):
        Manifest.from_json(text)
