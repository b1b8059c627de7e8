"""Which weights move, and which layouts a model can take."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.shapes import QWEN_0P5B, SMOLLM2_135M, Shape, random_model
from services.modelkit.adapters import attach_lora
from services.trainer.engine.methods import can_share_beginnings, check_adapters, freeze, prepare_model
from services.trainer.engine.precision import set_formats
from services.trainer.engine.training_task import TrainingFault
from tests.support.tiny_networks import FAMILIES, network
from tests.support.training_run import tiny_inputs
from tuneforge.manifest import IntegrityError
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.memory import adapter_parameters, estimate
from tuneforge.specs.spec import (
    BaseModel,
    ComputeType,
    DataConfig,
    DataSource,
    FullMethod,
    LoraMethod,
    Method,
    TrainingSpec,
)


def architecture_of(family: str) -> Architecture:
    """Returns what a registry would know of a network."""
    model = network(family)
    shared = "lm_head.weight" if model.config.tie_word_embeddings else ""
    tensors = tuple(
        TensorShape(name=name, shape=tuple(value.shape), dtype="F32")
        for name, value in model.state_dict().items()
        if name != shared
    )
    return Architecture(class_name=type(model).__name__, config=model.config.to_dict(), tensors=tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rank_up_to_the_smallest_side_is_taken(family: str) -> None:
    """The largest rank fits, one more does not; GPT-2's transposed layers are measured alike."""
    smallest = 32 if family == "gpt2" else 16
    check_adapters(network(family), LoraMethod(rank=smallest))
    with pytest.raises(TrainingFault, match=f"at most {smallest}"):
        check_adapters(network(family), LoraMethod(rank=smallest + 1))


def test_only_chosen_layers_bound_the_rank() -> None:
    """A rank above a layer that gets no adapter is fine."""
    check_adapters(network("llama"), LoraMethod(rank=32, target_modules=("q_proj", "o_proj")))


def test_models_with_masks_of_their_own_share_no_beginnings() -> None:
    """A window shorter than a row, or capped attention, would be lost under a mask of ours."""
    model = network("llama")
    assert can_share_beginnings(model, 100)
    model.config.sliding_window = 64
    assert can_share_beginnings(model, 64)
    assert not can_share_beginnings(model, 65)
    model.config.sliding_window = None
    model.config.attn_logit_softcapping = 50.0
    assert not can_share_beginnings(model, 10)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_arithmetic_of_adapters_is_that_of_the_model(family: str, dora: bool) -> None:
    """The adapters' weights that a preflight counts are those that then move, DoRA's magnitudes among them."""
    lora = LoraMethod(rank=4, use_dora=dora, use_rslora=not dora)
    model = attach_lora(network(family), lora, seed=0)
    moving = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert adapter_parameters(lora, architecture_of(family)) == moving


@pytest.mark.parametrize("freeze_layers", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_get_no_gradient_and_no_memory(family: str, freeze_layers: int) -> None:
    """The embeddings and the lowest blocks stay as they are; the estimate counts what moves, weight by weight."""
    model = network(family)
    freeze(model, freeze_layers)
    moving = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert bool(freeze_layers) != any("embed" in name or "wte" in name for name in moving)
    assert any(".1." in name for name in moving)
    assert bool(freeze_layers) != any(".0." in name for name in moving)
    spec = TrainingSpec(
        base=BaseModel(model="m"),
        method=FullMethod(freeze_layers=freeze_layers),
        data=DataConfig(train=DataSource(dataset="d")),
        compute=ComputeType.FP32,
    )
    found = estimate(spec, architecture_of(family))
    assert found.gradients_bytes == 4 * sum(parameter.numel() for parameter in moving.values())


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
@pytest.mark.parametrize(
    "method", [LoraMethod(rank=16), LoraMethod(rank=8, use_dora=True), FullMethod(), FullMethod(freeze_layers=5)]
)
@pytest.mark.parametrize("shape", [QWEN_0P5B, SMOLLM2_135M], ids=lambda shape: shape.name)
def test_the_arithmetic_of_a_model_is_that_of_its_tensors(shape: Shape, method: Method, compute: ComputeType) -> None:
    """Whole models on no device, in the formats that a run keeps: their bytes are those that the preflight says."""
    model = random_model(shape, torch.device("meta"), torch.float32)
    tensors = tuple(
        TensorShape(name=name, shape=tuple(value.shape), dtype="F32") for name, value in model.named_parameters()
    )
    architecture = Architecture(class_name=shape.architecture, config=model.config.to_dict(), tensors=tensors)
    if isinstance(method, FullMethod):
        freeze(model, method.freeze_layers)
    elif isinstance(method, LoraMethod):
        model = attach_lora(model.requires_grad_(False), method, seed=0)
    set_formats(model, compute)
    adapters, weights = (
        sum(value.nbytes for name, value in model.named_parameters() if ("lora_" in name) is is_adapter)
        for is_adapter in (True, False)
    )
    moving = [value for value in model.parameters() if value.requires_grad]
    spec = TrainingSpec(
        base=BaseModel(model="m"), method=method, data=DataConfig(train=DataSource(dataset="d")), compute=compute
    )
    found = estimate(spec, architecture)
    assert (found.weights_bytes, found.adapter_bytes) == (weights, adapters)
    assert found.gradients_bytes == sum(value.nbytes for value in moving)
    assert found.optimizer_bytes == sum(2 * torch.zeros_like(value).nbytes for value in moving)


def test_something_must_be_left_to_move() -> None:
    """As many frozen layers as the model has are refused, with the largest number that is taken."""
    with pytest.raises(TrainingFault, match="Freeze at most 1"):
        freeze(network("llama"), 2)


def test_a_damaged_base_is_never_handed_out(tmp_path: Path) -> None:
    """Its last bytes are checked while adapters are made; also where the method does not fit, the damage is told."""
    task = tiny_inputs(tmp_path)
    spec = replace(task.spec, method=LoraMethod(rank=4), compute=ComputeType.FP32)
    assert prepare_model(task.base, spec, torch.device("cpu")).trainable_parameters
    weights = task.base[0].folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    for rank in (4, 1000):
        with pytest.raises(IntegrityError, match=r"model\.safetensors"):
            prepare_model(task.base, replace(spec, method=LoraMethod(rank=rank)), torch.device("cpu"))
