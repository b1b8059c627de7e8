"""Activation recompute: less is kept and more is computed, and no number changes."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from services.trainer.engine import recompute
from services.trainer.engine.batches import padded_batch
from services.trainer.engine.losses import supervised_loss
from services.trainer.engine.precision import autocast, set_formats
from services.trainer.engine.recompute import apply_recompute, cheapest_that_fits
from tests.support.tiny_networks import FAMILIES, examples, network, network_with_lora
from tests.unit.trainer_engine.test_methods import architecture_of
from tuneforge.specs.memory import estimate
from tuneforge.specs.spec import ActivationRecompute as Policy
from tuneforge.specs.spec import ComputeType, DataConfig, LoraMethod, TrainingSpec

POLICIES = (Policy.NONE, Policy.SELECTIVE, Policy.FULL)


@pytest.fixture(autouse=True)
def narrow_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the products of the tiny networks count as wide, and those of their adapters (rank 4) not."""
    monkeypatch.setattr(recompute, "_WIDE", 32)


def step(
    family: str, policy: Policy, *, compute: ComputeType = ComputeType.FP32, with_adapters: bool = True
) -> tuple[dict[str, torch.Tensor], int, int]:
    """Makes a forward and a backward pass with dropout.

    Returns:
        Loss, gradients and the next random number; bytes kept between the passes; operations of both.
    """
    model: Any = network_with_lora(family, dropout=0.3) if with_adapters else network(family).requires_grad_(True)
    set_formats(model, compute)
    apply_recompute(model.get_base_model() if with_adapters else model, policy)
    model.train()
    torch.manual_seed(3)
    counter = FlopCounterMode(display=False)
    with counter, autocast(compute, torch.device("cpu")):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as allocations:
            loss = supervised_loss(model, padded_batch(examples([60, 50, 40])))
        loss.sum.backward()
    kept = sum(event.self_cpu_memory_usage for event in allocations.key_averages())
    numbers = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert numbers
    return numbers | {"loss": loss.sum.detach(), "random": torch.rand(1)}, kept, counter.get_total_flops()


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
@pytest.mark.parametrize("with_adapters", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_policy_changes_a_number(family: str, with_adapters: bool, compute: ComputeType) -> None:
    """Loss, every gradient and the random numbers that follow have the same bits."""
    expected, *_ = step(family, Policy.NONE, compute=compute, with_adapters=with_adapters)
    for policy in POLICIES[1:]:
        found, *_ = step(family, policy, compute=compute, with_adapters=with_adapters)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), (policy, name)


def test_each_policy_keeps_less_and_computes_more() -> None:
    """Bytes kept for the backward pass fall from policy to policy; operations rise, with SELECTIVE by a little only."""
    _, kept, operations = zip(*(step("llama", policy, with_adapters=False) for policy in POLICIES), strict=True)
    none, selective, full = kept
    assert 0 < full < 0.7 * selective < 0.5 * none
    assert operations[0] <= operations[1] < operations[2]
    assert operations[1] <= 1.02 * operations[0]
    assert operations[2] >= 1.2 * operations[0]


def test_evaluation_computes_once() -> None:
    """Without gradients, or outside of training, nothing is computed again."""
    model = network_with_lora("llama")
    apply_recompute(model.get_base_model(), Policy.FULL)
    batch = padded_batch(examples([30]))
    counts = []
    for mode in (model.train, model.eval):
        mode()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            supervised_loss(model, batch)
        counts.append(counter.get_total_flops())
    plain = network_with_lora("llama")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        supervised_loss(plain, batch)
    assert counts == [counter.get_total_flops()] * 2


def test_the_fastest_policy_that_fits_is_taken() -> None:
    """The estimate decides: with room for all nothing is recomputed, with room for nothing everything is."""
    spec = TrainingSpec(method=LoraMethod(), compute=ComputeType.BF16, data=DataConfig(max_tokens=64))
    architecture = architecture_of("llama")
    totals = {}
    for policy in POLICIES:
        asked = TrainingSpec(
            method=LoraMethod(),
            compute=ComputeType.BF16,
            data=DataConfig(max_tokens=4096),
            optimization=type(spec.optimization)(rows_per_micro_batch=1, recompute=policy),
        )
        totals[policy] = estimate(asked, architecture).total_bytes
    assert totals[Policy.NONE] > totals[Policy.SELECTIVE] > totals[Policy.FULL]
    for room, expected in (
        (totals[Policy.NONE], Policy.NONE),
        (totals[Policy.NONE] - 1, Policy.SELECTIVE),
        (totals[Policy.SELECTIVE] - 1, Policy.FULL),
        (0, Policy.FULL),
    ):
        assert cheapest_that_fits(spec, architecture, 4096, room) is expected
