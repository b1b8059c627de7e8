"""Update rules: decoupled decay, and a state that survives safetensors."""

import pytest
import torch

from services.trainer.engine.optimizers import load_state_tensors, make_optimizer, state_tensors, update
from tuneforge.specs.spec import Optimizer


def weights() -> dict[str, torch.nn.Parameter]:
    """Returns two weights with known values."""
    return {name: torch.nn.Parameter(torch.full((2, 3), value)) for name, value in (("one", 1.0), ("two", 2.0))}


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], gradient: float) -> None:
    """Makes one update with the same gradient everywhere."""
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, gradient)
    update(optimizer, 0.1)


@pytest.mark.parametrize("kind", list(Optimizer))
def test_decay_is_decoupled_from_the_gradient(kind: Optimizer) -> None:
    """With a gradient of 0 a weight shrinks by rate times decay, and no momentum builds up from it."""
    parameters = weights()
    optimizer = make_optimizer(kind, parameters, weight_decay=0.5)
    for _ in range(2):
        step(optimizer, parameters, 0.0)
    torch.testing.assert_close(parameters["two"].detach(), torch.full((2, 3), 2.0 * 0.95**2))


def test_sgd_has_momentum() -> None:
    """The second step with the same gradient moves 1.9 times as far as the first."""
    parameters = weights()
    optimizer = make_optimizer(Optimizer.SGD, parameters, weight_decay=0.0)
    step(optimizer, parameters, 1.0)
    step(optimizer, parameters, 1.0)
    torch.testing.assert_close(parameters["one"].detach(), torch.full((2, 3), 1.0 - 0.1 - 0.19))


@pytest.mark.parametrize("kind", list(Optimizer))
def test_a_restored_state_goes_on_bit_for_bit(kind: Optimizer) -> None:
    """Two steps, save, load into a new optimiser, one step: the same bits as three steps."""
    parameters = weights()
    optimizer = make_optimizer(kind, parameters, weight_decay=0.1)
    for gradient in (0.3, -0.7):
        step(optimizer, parameters, gradient)
    saved = {name: tensor.clone() for name, tensor in state_tensors(optimizer, parameters).items()}
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
