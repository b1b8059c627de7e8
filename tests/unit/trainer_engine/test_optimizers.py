"""Update rules: decoupled decay, and a state that survives safetensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.trainer.engine.optimizers import (
    load_state_tensors,
    make_optimizer,
    resolve_optimizer,
    state_tensors,
    update,
)
from tuneforge.specs.architecture import Architecture, TensorShape
from tuneforge.specs.memory import estimate
from tuneforge.specs.spec import BaseModel, DataConfig, DataSource, FullMethod, Optimization, Optimizer, TrainingSpec

RULES = [kind for kind in Optimizer if kind is kind.unpaged]
SHAPES = ((64, 80), (80,))
"""One weight large enough for a state of 8 bits, one too small for it."""


def weights() -> dict[str, torch.nn.Parameter]:
    """Returns two weights with known values."""
    values = (("one", 1.0, SHAPES[1]), ("two", 2.0, SHAPES[0]))
    return {name: torch.nn.Parameter(torch.full(shape, value)) for name, value, shape in values}


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], gradient: float) -> None:
    """Makes one update with the same gradient everywhere."""
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, gradient)
    update(optimizer, 0.1)


@pytest.mark.parametrize("kind", RULES)
def test_decay_is_decoupled_from_the_gradient(kind: Optimizer) -> None:
    """With a gradient of 0 a weight shrinks by rate times decay, and no momentum builds up from it."""
    parameters = weights()
    optimizer = make_optimizer(kind, parameters, weight_decay=0.5)
    for _ in range(2):
        step(optimizer, parameters, 0.0)
    torch.testing.assert_close(parameters["two"].detach(), torch.full(SHAPES[0], 2.0 * 0.95**2))


def test_sgd_has_momentum() -> None:
    """The second step with the same gradient moves 1.9 times as far as the first."""
    parameters = weights()
    optimizer = make_optimizer(Optimizer.SGD, parameters, weight_decay=0.0)
    step(optimizer, parameters, 1.0)
    step(optimizer, parameters, 1.0)
    torch.testing.assert_close(parameters["one"].detach(), torch.full(SHAPES[1], 1.0 - 0.1 - 0.19))


@pytest.mark.parametrize("kind", RULES)
def test_a_restored_state_goes_on_bit_for_bit(kind: Optimizer, tmp_path: Path) -> None:
    """Two steps, save, load into a new optimiser, one step: the same bits as three steps."""
    parameters = weights()
    optimizer = make_optimizer(kind, parameters, weight_decay=0.1)
    for gradient in (0.3, -0.7):
        step(optimizer, parameters, gradient)
    save_file(state_tensors(optimizer, parameters), tmp_path / "state.safetensors")
    saved = load_file(tmp_path / "state.safetensors")
    copies = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    restored = make_optimizer(kind, copies, weight_decay=0.1)
    load_state_tensors(restored, copies, saved)
    step(optimizer, parameters, 0.2)
    step(restored, copies, 0.2)
    for name, parameter in parameters.items():
        assert torch.equal(parameter, copies[name])


def test_an_update_drops_the_gradients() -> None:
    """No gradient of a step reaches the next one."""
    parameters = weights()
    step(make_optimizer(Optimizer.ADAMW, parameters, weight_decay=0.0), parameters, 1.0)
    assert all(parameter.grad is None for parameter in parameters.values())


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_learns(kind: Optimizer) -> None:
    """Thirty updates bring a weight most of the way to what its gradient asks for."""
    weight = torch.nn.Parameter(torch.linspace(-1.0, 1.0, 64 * 80).reshape(64, 80))
    optimizer = make_optimizer(kind, {"weight": weight}, weight_decay=0.0)
    start = weight.detach().square().mean()
    for _ in range(30):
        weight.grad = weight.detach().clone()  # of half the squared distance from 0
        update(optimizer, 0.05)
    assert weight.detach().square().mean() < 0.2 * start


def test_eight_bits_are_a_quarter_of_the_state() -> None:
    """The moments of a large weight take a quarter of the bytes, with a scale for each block."""
    sizes = {}
    for kind in (Optimizer.ADAMW, Optimizer.ADAMW_8BIT):
        parameters = {"weight": torch.nn.Parameter(torch.ones(512, 512))}
        optimizer = make_optimizer(kind, parameters, weight_decay=0.0)
        step(optimizer, parameters, 1.0)
        sizes[kind] = sum(value.nbytes for value in state_tensors(optimizer, parameters).values())
    assert 0.25 < sizes[Optimizer.ADAMW_8BIT] / sizes[Optimizer.ADAMW] < 0.27


@pytest.mark.parametrize("kind", list(Optimizer))
def test_without_a_gpu_no_state_is_paged(kind: Optimizer) -> None:
    """A paged rule becomes its plain form on a CPU, the others stay."""
    assert resolve_optimizer(kind, torch.device("cpu")) is kind.unpaged
    assert resolve_optimizer(kind, torch.device("cuda")) is kind


@pytest.mark.parametrize("kind", RULES)
def test_the_arithmetic_of_memory_is_that_of_the_state(kind: Optimizer) -> None:
    """What a preflight says of an optimiser is what its state takes, but for one counter a weight."""
    shapes = {"embed.weight": (512, 64), "layer.weight": (64, 72), "norm.weight": (64,)}
    parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    optimizer = make_optimizer(kind, parameters, weight_decay=0.0)
    step(optimizer, parameters, 1.0)
    found = sum(value.nbytes for value in state_tensors(optimizer, parameters).values() if value.ndim)
    tensors = tuple(TensorShape(name=name, shape=shape, dtype="F32") for name, shape in shapes.items())
    architecture = Architecture(class_name="LlamaForCausalLM", config={}, tensors=tensors)
    spec = TrainingSpec(
        base=BaseModel(model="m"),
        method=FullMethod(),
        data=DataConfig(train=DataSource(dataset="d")),
        optimization=Optimization(optimizer=kind),
    )
    assert estimate(spec, architecture).optimizer_bytes == found
