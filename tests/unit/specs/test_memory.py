"""The memory estimate is arithmetic that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.specs.shapes import HIDDEN, INNER, LAYERS, VOCABULARY, small_llama
from tuneforge.specs.architecture import TensorShape
from tuneforge.specs.memory import DEVICE_OVERHEAD_BYTES, MemoryEstimate, adapter_parameters, estimate
from tuneforge.specs.spec import (
    BaseModel,
    ComputeType,
    DataConfig,
    DataSource,
    FullMethod,
    LoraMethod,
    Merge,
    MergeMethod,
    Method,
    Optimization,
    Optimizer,
    PreferenceTask,
    QloraMethod,
    Resources,
    RewardModelTask,
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


def on_nodes(asked: TrainingSpec, nodes: int, *, on_cpu: bool) -> MemoryEstimate:
    """Returns the estimate of a spec on several nodes."""
    return estimate(replace(asked, resources=Resources(nodes=nodes)), small_llama(), on_cpu=on_cpu)


def test_nodes_share_what_is_held_and_not_what_is_computed() -> None:
    """Each of four nodes holds a quarter of weights, gradients and states; packed weights are whole on each."""
    alone, shared = (on_nodes(spec(FullMethod()), nodes, on_cpu=False) for nodes in (1, 4))
    assert shared.weights_bytes == PARAMETERS == alone.weights_bytes // 4
    assert (shared.gradients_bytes, shared.optimizer_bytes) == (PARAMETERS, 2 * PARAMETERS)
    # While it computes, a process has whole what is outside the blocks and two blocks (here all), and their gradients.
    assert shared.activations_bytes == alone.activations_bytes + 2 * 4 * PARAMETERS
    assert shared.host_bytes == alone.host_bytes + 12 * PARAMETERS  # what is put together, beside its copy
    packed = spec(QloraMethod(lora=LoraMethod(rank=2)))
    assert on_nodes(packed, 4, on_cpu=False) == on_nodes(packed, 1, on_cpu=False)


def test_the_first_of_several_hosts_saves_all_and_loads_the_base_again() -> None:
    """On hosts the first process puts the whole state together for a checkpoint, and the whole model at the end."""
    assert on_nodes(spec(FullMethod()), 2, on_cpu=True).snapshot_bytes == 24 * PARAMETERS
    found = on_nodes(spec(LoraMethod(rank=2)), 2, on_cpu=True)
    at_the_end = 4 * PARAMETERS + found.weights_bytes + found.adapter_bytes + found.optimizer_bytes
    assert found.total_bytes >= at_the_end + found.overhead_bytes


def test_a_reward_model_has_one_output_in_place_of_logits() -> None:
    """Its head is a weight that moves; no logits are computed."""
    pairs = spec(FullMethod(), rows_per_micro_batch=1)
    preference, reward = (
        estimate(replace(pairs, task=task), small_llama()) for task in (PreferenceTask(), RewardModelTask())
    )
    assert reward.gradients_bytes == preference.gradients_bytes + 4 * HIDDEN
    assert reward.weights_bytes == preference.weights_bytes + 4 * HIDDEN
    assert preference.activations_bytes - reward.activations_bytes == 2 * 16 * VOCABULARY * 12
    lora = replace(spec(LoraMethod(rank=2)), task=RewardModelTask())
    adapters = adapter_parameters(LoraMethod(rank=2), small_llama())
    assert estimate(lora, small_llama()).gradients_bytes == 4 * (adapters + HIDDEN)


def test_merging_keeps_the_logits_of_one_model() -> None:
    """A merge moves nothing; on a host it keeps the adapter's logits while the merged model is in memory."""
    host, device = (estimate(spec(MergeMethod()), small_llama(), on_cpu=on_cpu) for on_cpu in (True, False))
    assert (host.gradients_bytes, host.optimizer_bytes, host.weights_bytes) == (0, 0, 4 * PARAMETERS)
    assert host.activations_bytes - device.activations_bytes == 4096 * VOCABULARY * 4
    head = TensorShape(name="lm_head.weight", shape=(10**6, HIDDEN), dtype="F32")
    wide = replace(small_llama(), tensors=(*small_llama().tensors, head))
    assert estimate(spec(MergeMethod()), wide, on_cpu=True).activations_bytes > 512 * 1024**2


def test_a_result_that_is_merged_is_held_whole_at_the_end() -> None:
    """The base of QLoRA is packed while it trains; in the end a whole model is there, and the logits of another one."""
    asked = replace(spec(QloraMethod(lora=LoraMethod(rank=2)), rows_per_micro_batch=1), merge=Merge())
    head = TensorShape(name="lm_head.weight", shape=(10**6, HIDDEN), dtype="F32")
    wide = replace(small_llama(), tensors=(*small_llama().tensors, head))
    found, alone = (estimate(each, wide, on_cpu=True) for each in (asked, replace(asked, merge=None)))
    assert found.total_bytes > alone.total_bytes
    assert found.total_bytes >= found.overhead_bytes + 4 * wide.parameters + found.adapter_bytes + 512 * 1024**2
