"""float16: a loss whose scale lets small gradients live, and steps whose gradients overflow move nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.engine import checkpoints, scaling
from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.precision import resolve_compute, set_formats
from services.trainer.engine.randomness import exact_kernels
from services.trainer.engine.scaling import FIRST_FACTOR, LossScale
from services.trainer.engine.tasks.language import LanguageTask
from services.trainer.engine.training_task import TrainingFault
from services.trainer.engine.verbs import Engine, EngineOptions
from tests.support.tiny_networks import examples, network_with_lora
from tuneforge.errors import Reason
from tuneforge.specs.spec import ComputeType, Optimizer

ROWS = examples([9, 14, 5])


def engine_of(compute: ComputeType, folder: Path) -> Engine:
    """Returns an engine of a tiny network; float16 on a CPU is for tests alone, which a run never resolves to."""
    model = network_with_lora("llama")
    set_formats(model, compute)
    options = EngineOptions(
        device=torch.device("cpu"),
        compute=compute,
        limits=BatchLimits(max_rows=2, max_tokens=1000, attention_share=0.001),
        optimizer=Optimizer.ADAMW,
        weight_decay=0.0,
        max_grad_norm=1.0,
        end_tokens=frozenset,
        checkpoints=folder,
        keep_last=2,
        attempt=1,
        beat=lambda: None,
    )
    return Engine(model, LanguageTask(), options)


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    """Returns a copy of the weights that move."""
    return {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}


def test_float16_learns_what_float32_learns(tmp_path: Path) -> None:
    """Loss and gradient norm are those of float32 within float16's precision: the scale is taken out again."""
    whole, half = engine_of(ComputeType.FP32, tmp_path), engine_of(ComputeType.FP16, tmp_path)
    for _ in range(3):
        losses = [engine.forward_backward(ROWS).loss for engine in (whole, half)]
        norms = [engine.optim_step(1e-3) for engine in (whole, half)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)
        assert norms[1] == pytest.approx(norms[0], rel=2e-2)


def test_an_overflow_moves_nothing_and_halves_the_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With far too large a scale steps are passed over until their gradients fit; then the model learns."""
    monkeypatch.setattr(scaling, "FIRST_FACTOR", 2.0**40)
    engine = engine_of(ComputeType.FP16, tmp_path)
    before = weights(engine)
    norms: list[float] = []
    while not norms or math.isinf(norms[-1]):
        after = weights(engine)
        assert all(torch.equal(before[name], after[name]) for name in before)
        engine.forward_backward(ROWS)
        norms.append(engine.optim_step(1e-3))
        assert len(norms) < 60
    assert len(norms) > 2
    assert any(not torch.equal(before[name], value) for name, value in weights(engine).items())


def test_gradients_that_are_not_finite_end_a_run_at_last(tmp_path: Path) -> None:
    """When no scale helps the gradients themselves are broken, and the fault says so."""
    engine = engine_of(ComputeType.FP16, tmp_path)

    def break_down() -> None:
        for _ in range(40):
            engine.forward_backward(ROWS)
            for parameter in engine.parameters.values():
                parameter.grad = torch.full_like(parameter, math.inf)
            engine.optim_step(1e-3)

    with pytest.raises(TrainingFault) as caught:
        break_down()
    assert caught.value.reason is Reason.LOSS_NOT_FINITE


def test_the_scale_is_part_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed engine goes on with the scale and the count of steps, bit for bit as an unbroken one."""
    monkeypatch.setattr(scaling, "STEPS_TO_GROW", 3)

    def steps(engine: Engine, count: int) -> list[Any]:
        return [(engine.forward_backward(ROWS).loss, engine.optim_step(1e-3)) for _ in range(count)]

    unbroken, broken = engine_of(ComputeType.FP16, tmp_path), engine_of(ComputeType.FP16, tmp_path)
    expected = steps(unbroken, 6)
    assert unbroken._scale.factor == 4 * FIRST_FACTOR
    steps(broken, 4)
    broken.save_state(4, {})
    broken.settle()
    resumed = engine_of(ComputeType.FP16, tmp_path)
    (found,) = checkpoints.saved(tmp_path)
    assert isinstance(found, checkpoints.SavedCheckpoint)
    resumed.restore(checkpoints.load(found))
    assert steps(resumed, 2) == expected[4:]
    assert resumed._scale.factor == 4 * FIRST_FACTOR


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
def test_other_formats_have_no_scale(compute: ComputeType) -> None:
    """Nothing is multiplied, counted or saved."""
    scale = LossScale(compute)
    assert scale.factor == 1.0
    assert scale.moves(math.inf)
    assert scale.tensors() == {}


def test_float16_is_for_gpus() -> None:
    """A CPU computes what AUTO would be there."""
    cpu = torch.device("cpu")
    assert resolve_compute(ComputeType.FP16, cpu) is resolve_compute(ComputeType.AUTO, cpu)
    assert resolve_compute(ComputeType.FP16, torch.device("cuda:0")) is ComputeType.FP16


def test_what_has_no_exact_kernel_is_refused_by_name() -> None:
    """The fault names the field and what torch says; afterwards torch is as it was."""
    with exact_kernels(is_asked=True):
        assert torch.are_deterministic_algorithms_enabled()
    with pytest.raises(TrainingFault, match="put_") as caught, exact_kernels(is_asked=True):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    assert caught.value.metadata == {"field": "precision.deterministic"}
    assert not torch.are_deterministic_algorithms_enabled()
