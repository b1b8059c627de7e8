"""Only verified, safe and supported files become a model, and adapters below are merged into it."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import load_base
from tests.unit.modelkit.conftest import artifact
from tuneforge.data.masks import encode_prompt
from tuneforge.manifest import IntegrityError
from tuneforge.specs.spec import Quantization

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(input_ids=IDS).logits)


def test_a_model_is_loaded_with_all_it_needs(base: LocalArtifact) -> None:
    """Model, tokenizer, chat format, stop tokens and the longest text come from one folder."""
    loaded = load_base([base], dtype=torch.float32)
    ids = encode_prompt("the user", loaded.tokenizer, loaded.chat_format)
    assert loaded.tokenizer.decode(ids) == "the user"
    assert loaded.stop_ids == {loaded.tokenizer.token_to_id("<|im_end|>")}
    assert (loaded.max_positions, loaded.folder) == (512, base.folder)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_any_changed_byte_is_refused_by_name(base: LocalArtifact, file: str) -> None:
    """One flipped bit in any file stops the load and names the file."""
    path = base.folder / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=file.replace(".", r"\.")):
        load_base([base], dtype=torch.float32)


def test_a_changed_adapter_is_refused_by_name(base: LocalArtifact, adapter: LocalArtifact) -> None:
    """The layers above the base are verified as it is."""
    (adapter.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"adapter_config\.json"):
        load_base([base, adapter], dtype=torch.float32)


def test_adapters_below_are_merged_in_order(
    base: LocalArtifact, adapter: LocalArtifact, second_adapter: LocalArtifact
) -> None:
    """Merged adapters compute what the same adapters compute beside the base."""
    alone = _logits(load_base([base], dtype=torch.float32).model)
    merged = _logits(load_base([base, adapter, second_adapter], dtype=torch.float32).model)
    beside = load_adapter(load_base([base], dtype=torch.float32).model, adapter, "one")
    beside = load_adapter(beside, second_adapter, "two")
    beside.base_model.set_adapter(["one", "two"])
    assert not torch.allclose(merged, alone, atol=1e-2)
    torch.testing.assert_close(merged, _logits(beside), atol=1e-4, rtol=1e-4)


def test_nf4_is_made_of_merged_weights_on_the_cpu(base: LocalArtifact, adapter: LocalArtifact) -> None:
    """A model in 4 bits is near the whole one, adapters below included, and its blocks are eight times smaller."""
    whole = load_base([base, adapter], dtype=torch.float32).model
    quantized = load_base([base, adapter], dtype=torch.float32, quantization=Quantization.NF4).model
    ratio = (_logits(quantized) - _logits(whole)).norm() / _logits(whole).norm()
    assert 0 < ratio < 0.5
    block = sum(p.numel() * p.element_size() for p in quantized.model.layers.parameters())
    assert block < sum(p.numel() * p.element_size() for p in whole.model.layers.parameters()) / 7
    assert quantized.lm_head.weight.dtype == torch.float32


def _with_config(base: LocalArtifact, **fields: object) -> LocalArtifact:
    path = base.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return artifact(base.folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "never run"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "T5ForConditionalGeneration is not supported"),
        ({"architectures": None}, "None is not supported"),
        ({"architectures": 3}, "cannot be read"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised already"),
        ({"num_hidden_layers": 3}, "Weights are missing"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
    ],
)
def test_unsafe_or_unknown_models_are_refused(base: LocalArtifact, fields: dict[str, object], words: str) -> None:
    """A configuration that wants code, another architecture or other weights is refused with a cure."""
    with pytest.raises(InvalidModel, match=words) as error:
        load_base([_with_config(base, **fields)], dtype=torch.float32)
    assert error.value.cure.endswith(".")


def test_pickled_weights_are_never_read(base: LocalArtifact) -> None:
    """A folder whose weights are a pickle is refused, whatever it would load to."""
    shutil.move(base.folder / "model.safetensors", base.folder / "pytorch_model.bin")
    with pytest.raises(InvalidModel, match="no \\*\\.safetensors"):
        load_base([artifact(base.folder)], dtype=torch.float32)


def test_broken_weights_are_refused(base: LocalArtifact) -> None:
    """A weight file that is cut off, with a manifest that says so, is no model."""
    weights = base.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InvalidModel, match="cannot be loaded"):
        load_base([artifact(base.folder)], dtype=torch.float32)


def test_files_of_two_models_are_refused_by_name(base: LocalArtifact) -> None:
    """A weight of another shape is named with both; a tokenizer with more words than the model knows is told."""
    path = base.folder / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(weights | {name: weights[name][:-1].clone()}, path, metadata={"format": "pt"})
    rows, columns = weights[name].shape
    with pytest.raises(InvalidModel, match=rf"q_proj\.weight has the shape \({rows - 1}, {columns}\)"):
        load_base([artifact(base.folder, "model")], dtype=torch.float32)
    narrow = {each: tensor[:20].clone() for each, tensor in weights.items() if "embed" in each or "lm_head" in each}
    save_file(weights | narrow, path, metadata={"format": "pt"})
    config = json.loads((base.folder / "config.json").read_text())
    for padding, words in ((None, "the model's embedding 20 rows"), (config["eos_token_id"], "cannot be loaded")):
        changed = config | {"vocab_size": 20, "pad_token_id": padding}
        (base.folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InvalidModel, match=words):
            load_base([artifact(base.folder, "model")], dtype=torch.float32)


def test_layers_begin_with_a_whole_model(base: LocalArtifact, adapter: LocalArtifact) -> None:
    """An adapter without its base, or two bases, are refused."""
    for layers in ([adapter], [base, base]):
        with pytest.raises(InvalidModel, match="The layers are"):
            load_base(layers, dtype=torch.float32)


def test_a_folder_that_gained_a_file_is_refused(base: LocalArtifact, tmp_path: Path) -> None:
    """A file that the manifest does not list stops the load: it might be read instead of another."""
    (base.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"adapter_config\.json"):
        load_base([dataclasses.replace(base)], dtype=torch.float32)
