"""Update rules and their state by the names of the weights, so that a checkpoint is read without pickle."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tuneforge.specs.spec import Optimizer

Parameters = Mapping[str, torch.nn.Parameter]
"""Weights that move, by name, in a fixed order."""

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


def resolve_optimizer(kind: Optimizer, device: torch.device) -> Optimizer:
    """Returns the rule that a device computes: without a GPU there is no other memory to move a state to."""
    return kind if device.type == "cuda" else kind.unpaged


def make_optimizer(kind: Optimizer, parameters: Parameters, *, weight_decay: float) -> torch.optim.Optimizer:
    """Returns the update rule over some weights; its learning rate is set before each step (see `update`).

    Args:
        kind: Which rule, resolved.
        parameters: Weights that move.
        weight_decay: Decoupled from the gradient in every rule, >= 0.
    """
    weights = list(parameters.values())
    match kind:
        case Optimizer.ADAMW:
            return torch.optim.AdamW(weights, lr=0.0, betas=_BETAS, eps=_EPSILON, weight_decay=weight_decay, fused=True)
        case Optimizer.SGD:
            # torch would add the decay of SGD to the gradient, and with it to the momentum; `update` does it beside.
            optimizer = torch.optim.SGD(weights, lr=0.0, momentum=0.9)
            optimizer.param_groups[0]["decay_beside"] = weight_decay
            return optimizer
        case Optimizer.ADAFACTOR:
            return torch.optim.Adafactor(weights, lr=0.0, weight_decay=weight_decay)
        case Optimizer.ADAMW_8BIT | Optimizer.PAGED_ADAMW | Optimizer.PAGED_ADAMW_8BIT:
            make = _bitsandbytes_rule(kind)
            return make(weights, lr=0.0, betas=_BETAS, eps=_EPSILON, weight_decay=weight_decay)


def _bitsandbytes_rule(kind: Optimizer) -> Callable[..., torch.optim.Optimizer]:
    from bitsandbytes import optim  # costs a second where nothing else has imported it

    rules: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {
        Optimizer.ADAMW_8BIT: optim.AdamW8bit,
        Optimizer.PAGED_ADAMW: optim.PagedAdamW,
        Optimizer.PAGED_ADAMW_8BIT: optim.PagedAdamW8bit,
    }
    return rules[kind]


def update(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Makes one update with a learning rate and drops the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if decay := group.get("decay_beside"):
            with torch.no_grad():
                torch._foreach_mul_(group["params"], 1.0 - learning_rate * decay)
    optimizer.step()
    forget_gradients(optimizer)


def forget_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Drops the gradients of all weights."""
    optimizer.zero_grad(set_to_none=True)


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, torch.Tensor]:
    """Returns the state as tensors named `<entry>:<weight>`, e.g. `exp_avg:model.norm.weight`.

    A count that a rule keeps as a Python number becomes a scalar of 64 bits.
    """
    return {
        f"{entry}:{name}": _own(value)
        for name, parameter in parameters.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor | int)
    }


def load_state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Parameters, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Puts back what `state_tensors` gave."""
    numbers = {name: number for number, name in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        entry, _, name = key.partition(":")
        is_count = value.ndim == 0 and value.dtype is torch.int64
        state.setdefault(numbers[name], {})[entry] = int(value) if is_count else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _own(value: torch.Tensor | int) -> torch.Tensor:
    """Returns a tensor with memory of its own: weights may share a table of 256 numbers, which no file takes."""
    if isinstance(value, int):
        return torch.tensor(value, dtype=torch.int64)
    return value.clone() if value.ndim == 1 and value.numel() == 256 and value.dtype is torch.float32 else value
