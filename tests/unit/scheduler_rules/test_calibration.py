"""Predictions corrected by measured runs: towards what was measured, never below what is held for certain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.scheduler import calibration
from services.scheduler.calibration import CPU, Kind, Measured
from tests.unit.specs.shapes import small_llama
from tuneforge.specs.memory import MARGIN, estimate
from tuneforge.specs.spec import BaseModel, DataConfig, DataSource, FullMethod, LoraMethod, TrainingSpec
from tuneforge.specs.workload import flops_per_token, row_tokens_of, steps_of

KIND = Kind(family="LlamaForCausalLM", method="full", compute="fp32", device=CPU)
SPEC = TrainingSpec(
    base=BaseModel(model="m"),
    method=FullMethod(),
    data=DataConfig(train=DataSource(dataset="d"), max_tokens=16),
)
ARITHMETIC = estimate(SPEC, small_llama(), on_cpu=True)


def measured(ratio: float = 1.0, *, flops: float = 1e9, seconds: float = 10.0) -> Measured:
    """Returns a run whose peak was so many times the arithmetic one, of 1000 tokens."""
    return Measured(
        kind=KIND,
        arithmetic_bytes=10**9,
        real_bytes=round(ratio * 10**9),
        flops_per_token=flops,
        tokens=1000.0,
        seconds=seconds,
    )


def test_two_runs_correct_nothing() -> None:
    """One run may have had short rows by chance; three correct."""
    assert calibration.corrected(ARITHMETIC, [measured(0.5)] * 2) == ARITHMETIC
    assert calibration.corrected(ARITHMETIC, [measured(0.5)] * 3).runs == 3


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.3])
def test_the_sum_goes_to_what_was_measured(ratio: float) -> None:
    """The median run decides; the interval reaches beyond the runs furthest off."""
    runs = [measured(ratio - 0.1), measured(ratio), measured(ratio + 0.2)]
    found = calibration.corrected(ARITHMETIC, runs)
    assert found.total_bytes == pytest.approx(ARITHMETIC.total_bytes * ratio, rel=1e-6)
    assert found.highest_bytes > ARITHMETIC.total_bytes * (ratio + 0.2)
    assert found.lowest_bytes < ARITHMETIC.total_bytes * (ratio - 0.1)
    assert found.state_bytes == ARITHMETIC.state_bytes


def test_what_is_held_for_certain_is_never_taken_away() -> None:
    """Runs that claim a hundredth of the arithmetic leave weights, gradients and state as they are."""
    found = calibration.corrected(ARITHMETIC, [measured(1e-9)] * 5)
    assert found.total_bytes == found.state_bytes == ARITHMETIC.state_bytes
    assert found.lowest_bytes >= found.state_bytes


def test_arithmetic_alone_has_its_margin() -> None:
    """Without a measured run the interval is the margin of the published table."""
    assert ARITHMETIC.highest_bytes == round(ARITHMETIC.total_bytes * (1 + MARGIN))
    assert ARITHMETIC.runs == 0


def test_the_rate_is_that_of_the_nearest_models() -> None:
    """Six runs of a small model and five of a large one: a large one is told the time of the large ones."""
    small = [measured(flops=1e6, seconds=1.0) for _ in range(6)]
    large = [measured(flops=1e9, seconds=10.0 + number) for number in range(5)]
    found, runs = calibration.seconds_per_flop([*small, *large], 8e8, 1.0)
    assert runs == 5
    assert found.expected * 1e9 * 1000 == pytest.approx(12.0)
    assert found.lowest <= found.expected * 0.7
    assert found.highest >= found.expected * 1.3
    found, runs = calibration.seconds_per_flop([*small, large[0]], 8e8, 1.0)
    assert runs == 1  # one of its size is enough
    assert found.expected * 1e9 * 1000 == pytest.approx(10.0)


def test_without_runs_the_default_says_how_far_it_may_be_off() -> None:
    """Three times either way, and no run behind it; a known GPU is faster than an unknown one."""
    found, runs = calibration.seconds_per_flop([], 1e9, 2e9)
    assert (runs, found.expected) == (0, 0.5e-9)
    assert (found.lowest, found.highest) == pytest.approx((0.5e-9 / 3, 1.5e-9))
    assert calibration.default_rate(CPU, "fp32", 2.0) == 2 * calibration.default_rate(CPU, "fp32", 1.0)
    assert calibration.default_rate("NVIDIA H200", "bf16", 1) > calibration.default_rate("Foo 1", "bf16", 1)


def test_energy_needs_a_run_that_measured_it() -> None:
    """Watts are joules over seconds of the middle run."""
    assert calibration.power_watts([measured()]) is None
    assert calibration.power_watts([replace(measured(), joules=500.0), measured()]) == 50.0


def test_a_token_costs_more_the_more_moves() -> None:
    """Full fine-tuning costs half as much again as adapters, but for the adapters' own operations."""
    blocks = sum(tensor.size for tensors in small_llama().linear_layers().values() for tensor in tensors)
    head, attention = 8 * 32, 2.0 * 10 * 8 * 2
    full = flops_per_token(SPEC, small_llama(), 10)
    assert full == 6 * (blocks + head) + 3.5 * attention
    lora = flops_per_token(replace(SPEC, method=LoraMethod(rank=1)), small_llama(), 10)
    assert 4 * (blocks + head) < lora < full


def test_rows_and_steps() -> None:
    """A row has its characters' tokens, at most the longest; a fraction of a pass ends inside it."""
    assert row_tokens_of(400.0, 1024) == 116.0
    assert row_tokens_of(40_000.0, 1024) == 1024.0
    assert steps_of(10, 4, epochs=1.5, max_steps=None) == 5
    assert steps_of(10, 4, epochs=1.5, max_steps=7) == 7
