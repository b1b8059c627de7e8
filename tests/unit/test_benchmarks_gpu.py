"""The benchmarks for a GPU: the shapes are those of the models, and each kind of row runs where there is none."""

import pytest
import torch

from benchmarks.gpu import memory, shapes
from benchmarks.gpu.__main__ import OTHERS, SETTINGS, make
from services.modelkit.layers import decoder_linears


@pytest.mark.parametrize(
    "shape", [shapes.QWEN_7B, shapes.QWEN_1P5B, shapes.QWEN_0P5B, shapes.SMOLLM2_135M], ids=lambda shape: shape.name
)
def test_a_shape_is_that_of_its_model(shape: shapes.Shape) -> None:
    """Weights counted on no device: those of the blocks, the head, and all of them as published."""
    model = shapes.random_model(shape, torch.device("meta"), torch.bfloat16)
    linear = sum(layer.weight.numel() for _, _, layer in decoder_linears(model))
    assert linear == pytest.approx(shape.linear, rel=0.01)
    assert model.get_output_embeddings().weight.numel() == shape.head
    published = {"Qwen2.5-7B": 7.62e9, "Qwen2.5-1.5B": 1.544e9, "Qwen2.5-0.5B": 494e6, "SmolLM2-135M": 134.5e6}[
        shape.name
    ]
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(published, rel=0.01)


def test_no_limit_is_below_what_was_published() -> None:
    """Qwen2.5-7B with LoRA: 25,200 tokens a second at 4096 tokens with the whole head; 0.5B whole: 241,000 at 2048."""
    assert shapes.QWEN_7B.limit("lora", 4096, 1.0) == pytest.approx(25_200, rel=0.05)
    assert shapes.QWEN_0P5B.limit("full", 2048, 1.0) == pytest.approx(241_000, rel=0.05)
    assert {setting.method for setting, _ in SETTINGS.values()} == {"lora", "qlora", "full"}


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["gpu_qlora_7b", "gpu_full_0p5b", *OTHERS])
def test_a_row_runs_where_there_is_no_gpu(name: str) -> None:
    """Small models of the same family: the same work as the peer's, and each figure of the record is there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        record = make(name, is_tiny=True)
    finally:
        torch.set_num_threads(threads)
    assert record.equal_output or name == "gpu_memory"
    assert record.ours >= 0
    assert record.peer >= 0
    assert record.limit > 0
    assert ("share of our LoRA" in record.details) == (name == "gpu_qlora_7b")


def test_memory_is_held_against_enough_configurations() -> None:
    """At least 24, of each method, on the shape of 7B weights too."""
    found = list(memory.settings())
    assert len(found) >= 24
    assert {setting.method for setting in found} == {"lora", "qlora", "full"}
    assert "Qwen2.5-7B" in {setting.shape.name for setting in found}
