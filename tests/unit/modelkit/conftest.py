"""Tiny models and adapters as verified artifacts."""

from pathlib import Path

import pytest

from services.modelkit.artifacts import ArtifactKind, LocalArtifact
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.manifest import build


def artifact(folder: Path, kind: ArtifactKind = "model") -> LocalArtifact:
    """Returns the artifact that a folder is now."""
    manifest = build(folder)
    return LocalArtifact(folder=folder, manifest=manifest, kind=kind, ref_version="", digest=manifest.digest)


@pytest.fixture(name="base")
def _base(tmp_path: Path) -> LocalArtifact:
    return artifact(make_tiny_model(tmp_path / "base"))


@pytest.fixture(name="adapter")
def _adapter(tmp_path: Path) -> LocalArtifact:
    return artifact(make_tiny_adapter(tmp_path / "adapter", seed=1), "adapter")


@pytest.fixture(name="second_adapter")
def _second_adapter(tmp_path: Path) -> LocalArtifact:
    return artifact(make_tiny_adapter(tmp_path / "second", seed=2), "adapter")
