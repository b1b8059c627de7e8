"""Number formats: what AUTO becomes, and that frozen weights in bfloat16 change no number."""

from pathlib import Path

import pytest
import torch

from services.modelkit import hardware
from services.modelkit.hardware import computes_bf16
from services.trainer.engine.batches import padded_batch
from services.trainer.engine.losses import supervised_loss
from services.trainer.engine.precision import autocast, resolve_compute, set_formats
from tests.support.tiny_networks import examples, network_with_lora
from tuneforge.specs.spec import ComputeType

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", ComputeType.BF16),
        ("flags : fpu amx_bf16\n", ComputeType.BF16),
        ("Features : fp asimd bf16\n", ComputeType.BF16),
        ("flags : fpu avx2 avx512f\n", ComputeType.FP32),
        ("", ComputeType.FP32),
    ],
)
def test_auto_is_bf16_where_the_cpu_computes_it(
    text: str, expected: ComputeType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AUTO follows the instruction sets that the system tells; what was asked for stays."""
    info = tmp_path / "cpuinfo"
    info.write_text(text)
    monkeypatch.setattr(hardware, "_CPU_INFO", info)
    hardware._cpu_flags.cache_clear()
    try:
        assert resolve_compute(ComputeType.AUTO, CPU) is expected
        assert resolve_compute(ComputeType.FP32, CPU) is ComputeType.FP32
        assert resolve_compute(ComputeType.BF16, CPU) is ComputeType.BF16
    finally:
        hardware._cpu_flags.cache_clear()


def test_a_system_that_does_not_tell_has_no_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system's list of instruction sets the safe format is taken."""
    monkeypatch.setattr(hardware, "_CPU_INFO", tmp_path / "none")
    hardware._cpu_flags.cache_clear()
    assert not computes_bf16(CPU)
    hardware._cpu_flags.cache_clear()


def test_frozen_matrices_in_bf16_change_no_bit() -> None:
    """Loss and gradients are bit for bit those of autocast over float32 weights."""
    batch = padded_batch(examples([20, 11]))
    results = []
    for is_lowered in (False, True):
        model = network_with_lora("llama")
        if is_lowered:
            set_formats(model, ComputeType.BF16)
            assert model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight.dtype is torch.bfloat16
        with autocast(ComputeType.BF16, CPU):
            loss = supervised_loss(model, batch).sum
        loss.backward()
        results.append((loss.item(), [p.grad for p in model.parameters() if p.requires_grad]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))


def test_weights_that_move_embeddings_and_norms_are_float32() -> None:
    """Only frozen linear layers get the format of the products, and not a head that is the embedding too."""
    model = network_with_lora("gpt2")
    set_formats(model, ComputeType.BF16)
    lowered = {name for name, parameter in model.named_parameters() if parameter.dtype is torch.bfloat16}
    assert lowered
    assert all(".h." in name and "base_layer" in name and "ln_" not in name for name in lowered)
