"""Update rules and their state by the names of the weights, so that a checkpoint is read without pickle."""

from collections.abc import Mapping
from typing import Any

import torch

from tuneforge.specs.spec import Optimizer

Parameters = Mapping[str, torch.nn.Parameter]
"""Weights that move, by name, in a fixed order."""


def make_optimizer(kind: Optimizer, parameters: Parameters, *, weight_decay: float) -> torch.optim.Optimizer:
    """Returns the update rule over some weights; its learning rate is set before each step (see `update`).

    Args:
        kind: Which rule.
        parameters: Weights that move.
        weight_decay: Decoupled from the gradient in both rules, >= 0.
    """
    weights = list(parameters.values())
    if kind is Optimizer.ADAMW:
        return torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay, fused=True)
    # torch would add the decay of SGD to the gradient, and with it to the momentum; `update` does it beside.
    optimizer = torch.optim.SGD(weights, lr=0.0, momentum=0.9)
    optimizer.param_groups[0]["decay_beside"] = weight_decay
    return optimizer


def update(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Makes one update with a learning rate and drops the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if decay := group.get("decay_beside"):
            with torch.no_grad():
                torch._foreach_mul_(group["params"], 1.0 - learning_rate * decay)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Returns the state as tensors named `<entry>:<weight>`, e.g. `exp_avg:model.norm.weight`."""
    return {
        f"{entry}:{name}": value
        for name, parameter in parameters.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def load_state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Parameters, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what `state_tensors` gave."""
    numbers = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        entry, _, name = key.partition(":")
        state.setdefault(numbers[name], {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
