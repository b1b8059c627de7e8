"""The memory estimate is arithmetic that can be done by hand."""

from __future__ import annotations

from tests.unit.specs.shapes import HIDDEN, INNER, LAYERS, VOCABULARY, small_llama
from tuneforge.specs.memory import OVERHEAD_BYTES, adapter_parameters, estimate
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
    assert found.total_bytes > 16 * PARAMETERS + OVERHEAD_BYTES


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
