"""Adapters are made by seed, saved alike for alike weights, loaded side by side, and refused where they do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.modelkit.adapters import attach_lora, load_adapter, save_adapter, save_model
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import TOKENIZER_FILES, load_base
from tests.unit.modelkit.conftest import artifact
from tuneforge.specs.spec import LoraMethod

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def _model(base: LocalArtifact, **options: Any) -> Any:
    return load_base([base], dtype=torch.float32, **options).model


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(input_ids=IDS).logits)


def test_new_adapters_change_nothing_at_first(base: LocalArtifact) -> None:
    """A new adapter leaves the model's answers as they were and is all that can be trained."""
    model = attach_lora(_model(base), LoraMethod(), seed=1)
    assert torch.equal(_logits(model), _logits(_model(base)))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} >= {"q_proj", "down_proj"}


def test_adapters_are_drawn_by_seed(base: LocalArtifact, tmp_path: Path) -> None:
    """The same seed gives the same bytes, another seed others, and the global random state is left alone."""
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        method = LoraMethod(rank=4, target_modules=("v_proj", "q_proj"))
        save_adapter(attach_lora(_model(base), method, seed), tmp_path / name)
    assert torch.equal(before, torch.random.get_rng_state())
    digests = [artifact(tmp_path / name).digest for name in ("a", "b", "c")]
    assert digests[0] == digests[1] != digests[2]
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8, ["q_proj", "v_proj"])
    assert config["base_model_name_or_path"] is None


def test_unknown_targets_are_named(base: LocalArtifact) -> None:
    """A target that the model lacks is refused with the names that it has."""
    with pytest.raises(InvalidModel, match=r"no linear layer qkv.*gate_proj"):
        attach_lora(_model(base), LoraMethod(target_modules=("q_proj", "qkv")), seed=0)


@pytest.mark.parametrize("kind", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_trained_adapter_survives_saving(
    base: LocalArtifact, tmp_path: Path, quantization: Any, kind: dict[str, bool]
) -> None:
    """One step of training, whole or in 4 bits, saved and loaded beside the same base, computes the same."""
    torch.manual_seed(0)
    model = attach_lora(_model(base, quantization=quantization), LoraMethod(rank=4, **kind), seed=1).train()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    expected = _logits(model.eval())
    assert not torch.allclose(expected, _logits(_model(base, quantization=quantization)), atol=1e-3)
    save_adapter(model, tmp_path / "out")
    saved = artifact(tmp_path / "out", "adapter")
    loaded = load_adapter(_model(base, quantization=quantization), saved, "mine")
    torch.testing.assert_close(_logits(loaded), expected)


def test_adapters_stand_side_by_side(
    base: LocalArtifact, adapter: LocalArtifact, second_adapter: LocalArtifact
) -> None:
    """Two adapters share one base, each answers as if alone, and the base answers with both off."""
    model = load_adapter(load_adapter(_model(base), adapter, "one"), second_adapter, "two")
    for name, alone in (("one", adapter), ("two", second_adapter)):
        model.set_adapter(name)
        assert torch.equal(_logits(model), _logits(load_adapter(_model(base), alone, "x")))
    with model.disable_adapter():
        assert torch.equal(_logits(model), _logits(_model(base)))


def _with_config(adapter: LocalArtifact, **fields: object) -> LocalArtifact:
    path = adapter.folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return artifact(adapter.folder, "adapter")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "kind PREFIX_TUNING"),
        ({"bias": "all"}, "sets bias to 'all'"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"target_modules": "(a+)+"}, "no list"),
        ({"target_modules": ["nothing"]}, "does not fit"),
        ({"target_modules": ["q_proj"]}, "on one side only"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "on one side only"),
        ({"r": 8}, "does not fit"),
        ({"r": -1}, "positive integer"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    base: LocalArtifact, adapter: LocalArtifact, fields: dict[str, object], words: str
) -> None:
    """A configuration that wants more than LoRA, or does not match the weights, is refused."""
    with pytest.raises(InvalidModel, match=words):
        load_adapter(_model(base), _with_config(adapter, **fields), "x")


def test_a_refused_adapter_leaves_the_others_alone(base: LocalArtifact, adapter: LocalArtifact, tmp_path: Path) -> None:
    """After an adapter that does not fit, those that were loaded before answer as before."""
    model = load_adapter(_model(base), adapter, "good")
    expected = _logits(model)
    folder = tmp_path / "narrow"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter.folder / "adapter_config.json").read_bytes())
    weights = load_file(adapter.folder / "adapter_model.safetensors")
    save_file(
        {key: value[..., :2].contiguous() for key, value in weights.items()}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(InvalidModel, match="does not fit"):
        load_adapter(model, artifact(folder, "adapter"), "bad")
    assert torch.equal(_logits(model), expected)
    assert list(model.peft_config) == ["good"]


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_adapter_files_are_named(base: LocalArtifact, adapter: LocalArtifact, file: str) -> None:
    """An adapter without one of its files says which; a pickle in its place is not read."""
    (adapter.folder / file).rename(adapter.folder / "adapter_model.bin")
    with pytest.raises(InvalidModel, match=f"no {file}"):
        load_adapter(_model(base), artifact(adapter.folder, "adapter"), "x")


def test_a_whole_model_survives_saving(base: LocalArtifact, adapter: LocalArtifact, tmp_path: Path) -> None:
    """A merged model, saved and loaded, computes the same and can be asked with its own tokenizer."""
    loaded = load_base([base, adapter], dtype=torch.float32)
    save_model(loaded.model, tmp_path / "out", [base.folder / name for name in TOKENIZER_FILES])
    again = load_base([artifact(tmp_path / "out")], dtype=torch.float32)
    assert torch.equal(_logits(again.model), _logits(loaded.model))
    assert (again.stop_ids, again.chat_format) == (loaded.stop_ids, loaded.chat_format)
