"""A model from its configuration alone: the same weights at every load, told by their digest."""

import json
from pathlib import Path

import pytest
import torch

from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.initialization import INITIAL_WEIGHTS, INITIALIZATION, METADATA
from services.modelkit.loading import load_base
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.manifest import build

pytestmark = pytest.mark.heavy


def artifact(folder: Path, kind: str = "model") -> LocalArtifact:
    """Returns the files of a folder as an artifact."""
    manifest = build(folder)
    return LocalArtifact(
        folder=folder,
        manifest=manifest,
        kind="adapter" if kind == "adapter" else "model",
        ref_version="",
        digest=manifest.digest,
    )


def configuration(folder: Path, seed: object) -> Path:
    """Writes a configuration alone."""
    make_tiny_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / INITIALIZATION).write_text(json.dumps({"seed": seed}))
    return folder


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before(tmp_path: Path) -> None:
    """Neither the global generator nor the format that is asked for plays a part; the generator is left as it was."""
    folder = configuration(tmp_path / "seven", 7)
    first = load_base([artifact(folder)], dtype=torch.float32)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    second = load_base([artifact(folder)], dtype=torch.bfloat16)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.initial_weights == second.initial_weights is not None
    assert next(second.model.parameters()).dtype is torch.bfloat16
    other = load_base([artifact(configuration(tmp_path / "eight", 8))], dtype=torch.float32)
    assert other.initial_weights != first.initial_weights
    weights = first.model.model.layers[0].self_attn.q_proj.weight
    assert 0 < weights.std().item() < 0.1


def test_a_model_with_weights_has_no_such_digest(tmp_path: Path) -> None:
    """What lies in files is told by the manifest."""
    assert load_base([artifact(make_tiny_model(tmp_path / "m"))], dtype=torch.float32).initial_weights is None


@pytest.mark.parametrize("seed", [-1, 2**63, "7", None, True])
def test_a_seed_must_be_one(tmp_path: Path, seed: object) -> None:
    """Anything but a whole number in range is refused."""
    with pytest.raises(InvalidModel, match="names no seed"):
        load_base([artifact(configuration(tmp_path / "m", seed))], dtype=torch.float32)


def test_an_adapter_of_other_drawn_weights_is_refused(tmp_path: Path) -> None:
    """Beside the base and merged into it: an adapter knows the digest of the weights that it was trained on."""
    base = artifact(configuration(tmp_path / "base", 7))
    loaded = load_base([base], dtype=torch.float32)
    folder = make_tiny_adapter(tmp_path / "adapter")
    (folder / METADATA).write_text(json.dumps({INITIAL_WEIGHTS: loaded.initial_weights}))
    load_base([base, artifact(folder, "adapter")], dtype=torch.float32)
    (folder / METADATA).write_text(json.dumps({INITIAL_WEIGHTS: "0" * 64}))
    with pytest.raises(InvalidModel, match="was drawn here"):
        load_base([base, artifact(folder, "adapter")], dtype=torch.float32)
    with pytest.raises(InvalidModel, match="was drawn here"):
        load_adapter(loaded.model, artifact(folder, "adapter"), "a")
