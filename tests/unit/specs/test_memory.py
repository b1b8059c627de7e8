"""The memory estimate is arithmetic that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.specs.shapes import HIDDEN, INNER, LAYERS, VOCABULARY, small_llama
from tuneforge.specs.memory import DEVICE_OVERHEAD_BYTES, adapter_parameters, estimate
from tuneforge.specs.spec import (
    BaseModel,
    ComputeType,
    DataConfig,
    DataSource,
    FullMethod,
    LoraMethod,
    Method,
    Optimization,
    Optimizer,
    PreferenceTask,
    QloraMethod,
    TrainingSpec,
)

BLOCK = 2 * HIDDEN * HIDDEN + 2 * 4 * HIDDEN + 3 * HIDDEN * INNER
PARAMETERS = LAYERS * (BLOCK + HIDDEN) + VOCABULARY * HIDDEN


def spec(method: Method, **optimization: object) -> TrainingSpec:
    """Returns a spec with a method."""
    return TrainingSpec(
        base=BaseModel(model="m"),
        method=method,
        data=DataConfig(train=DataSource(dataset="d"), max_tokens=16),
        compute=ComputeType.FP32,
        optimization=Optimization(**optimization),  # type: ignore[arg-type]
    )


def test_full_counts_every_weight_four_times() -> None:
    """Full fine-tuning with AdamW holds weights, gradients and two states, each in float32."""
    found = estimate(spec(FullMethod()), small_llama())
    assert found.weights_bytes == 4 * PARAMETERS
    assert found.gradients_bytes == 4 * PARAMETERS
    assert found.optimizer_bytes == 8 * PARAMETERS
    assert found.adapter_bytes == 0
    assert found.total_bytes > 16 * PARAMETERS + DEVICE_OVERHEAD_BYTES


def test_sgd_holds_one_state() -> None:
    """SGD with momentum holds one state for each weight that moves."""
    found = estimate(spec(FullMethod(), optimizer=Optimizer.SGD), small_llama())
    assert found.optimizer_bytes == 4 * PARAMETERS


def test_lora_moves_the_adapters_only() -> None:
    """LoRA's gradients and states belong to rank x (inputs + outputs) of each target."""
    lora = LoraMethod(rank=2, target_modules=("q_proj",))
    adapters = LAYERS * 2 * (HIDDEN + HIDDEN)
    assert adapter_parameters(lora, small_llama()) == adapters
    found = estimate(spec(lora), small_llama())
    assert found.adapter_bytes == 4 * adapters
    assert found.gradients_bytes == 4 * adapters
    assert found.weights_bytes == 4 * PARAMETERS


def test_qlora_packs_the_linear_layers() -> None:
    """QLoRA keeps the blocks' linear layers in about 4.13 bits and the rest in float32."""
    found = estimate(spec(QloraMethod(lora=LoraMethod(rank=2))), small_llama())
    rest = PARAMETERS - LAYERS * BLOCK
    assert abs(found.weights_bytes - (4 * rest + LAYERS * BLOCK * 0.5158)) < 2


def test_a_pair_counts_as_two_rows() -> None:
    """Preference tuning computes both answers of a pair at once."""
    single = estimate(spec(LoraMethod(rank=2), rows_per_micro_batch=2), small_llama())
    pair = estimate(replace(spec(LoraMethod(rank=2), rows_per_micro_batch=2), task=PreferenceTask()), small_llama())
    assert pair.activations_bytes == 2 * single.activations_bytes


def test_on_a_host_copies_and_mapped_pages_count() -> None:
    """On a CPU the copy for checkpoints is part of the sum; beside an accelerator it is on the host."""
    host, device = (estimate(spec(FullMethod()), small_llama(), on_cpu=on_cpu) for on_cpu in (True, False))
    assert host.snapshot_bytes == 12 * PARAMETERS
    assert (device.snapshot_bytes, host.host_bytes) == (0, 0)
    assert device.host_bytes > 12 * PARAMETERS
    halved = replace(spec(LoraMethod(rank=2)), compute=ComputeType.BF16)
    found = estimate(halved, small_llama(), on_cpu=True)
    blocks = sum(tensor.size for tensors in small_llama().linear_layers().values() for tensor in tensors)
    assert found.weights_bytes == 2 * blocks + 4 * (PARAMETERS - blocks)
    assert found.mapped_bytes == 4 * blocks  # their pages in the file, which embeddings and norms keep mapped


def test_only_so_many_logits_are_held_at_once() -> None:
    """The head computes 1024 tokens at a time: twice the tokens add no logits beyond that."""
    few, many = (
        estimate(
            spec(FullMethod(), rows_per_micro_batch=rows, rows_per_step=128), small_llama(), on_cpu=True
        ).activations_bytes
        for rows in (64, 128)
    )
    logits = 1024 * VOCABULARY * 12
    assert many - logits == 2 * (few - logits) > 0
