"""Merging goes from files to files, one tensor at a time, in as many files as the weights ask for."""

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import load_base, load_weights
from services.modelkit.merging import MergeOptions, merge_layers
from services.modelkit.weight_files import StoredTensor, stored_tensors, write_tensors
from tests.support.tiny_model import make_tiny_adapter
from tests.unit.modelkit.conftest import artifact

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def test_merged_files_compute_what_peft_computes(
    base: LocalArtifact, adapter: LocalArtifact, second_adapter: LocalArtifact, tmp_path: Path
) -> None:
    """A stack of two adapters, merged in files, has the logits of the upper one beside the base with the lower one."""
    (tmp_path / "merged").mkdir()
    merge_layers([base, adapter, second_adapter], tmp_path / "merged", MergeOptions())
    beside = load_adapter(load_base([base, adapter], dtype=torch.float32).model, second_adapter, "upper")
    beside.set_adapter("upper")
    with torch.inference_mode():
        expected = beside(input_ids=IDS).logits
        found = load_weights(tmp_path / "merged", torch.float32)(input_ids=IDS).logits
        alone = load_base([base], dtype=torch.float32).model(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (alone - expected).abs().max() > 0.1


def test_shards_are_those_of_one_file(base: LocalArtifact, adapter: LocalArtifact, tmp_path: Path) -> None:
    """Cut into small files with an index, the model has the same weights, and transformers loads it."""
    for name, size in (("one", 10**9), ("many", 40_000)):
        (tmp_path / name).mkdir()
        merge_layers([base, adapter], tmp_path / name, MergeOptions(shard_bytes=size))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    names = set(index["weight_map"].values())
    assert len(names) > 2
    assert names == {path.name for path in (tmp_path / "many").glob("*.safetensors")}
    whole = load_file(tmp_path / "one" / "model.safetensors")
    parts = {key: tensor for name in names for key, tensor in load_file(tmp_path / "many" / name).items()}
    assert set(whole) == set(parts) == set(index["weight_map"])
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    assert load_weights(tmp_path / "many", torch.float32)


def test_one_tensor_is_in_memory_at_a_time(base: LocalArtifact, tmp_path: Path) -> None:
    """When a tensor is asked for, the one before it is gone."""
    before: list[weakref.ref[torch.Tensor]] = []

    def numbers_of(tensor: StoredTensor) -> torch.Tensor:
        gc.collect()
        assert not any(each() is not None for each in before)
        numbers = tensor.read()
        before.append(weakref.ref(numbers))
        return numbers

    tensors = stored_tensors(base.folder)
    write_tensors(tmp_path, [(tensor, tensor.dtype) for tensor in tensors], numbers_of)
    assert len(before) == len(tensors)
    assert (tmp_path / "model.safetensors").stat().st_size > 0
    written, original = load_file(tmp_path / "model.safetensors"), load_file(base.folder / "model.safetensors")
    assert all(torch.equal(written[name], original[name]) for name in original)


def test_an_adapter_of_another_model_is_refused(base: LocalArtifact, tmp_path: Path) -> None:
    """A layer that the base does not have is named, and nothing is merged."""
    stranger = artifact(make_tiny_adapter(tmp_path / "stranger", layers=3), "adapter")
    (tmp_path / "merged").mkdir()
    with pytest.raises(InvalidModel, match=r"layers\.2\.self_attn"):
        merge_layers([base, stranger], tmp_path / "merged", MergeOptions())
    assert not list((tmp_path / "merged").iterdir())
