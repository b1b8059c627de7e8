"""One model over the processes of a gang: whole in each (DDP), or in shards (FSDP2), or simply here.

Both of torch's wrappers hook into the forward pass of a module. Our losses, evaluations and samples are functions of a
model, so that one module runs any function as its forward pass, and the functions do not know how the model is spread.
"""

import contextlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from services.modelkit.layers import decoder_blocks
from services.trainer.engine.gang import Gang
from services.trainer.engine.losses import unwrapped
from tuneforge.specs.spec import Method, QloraMethod

T = TypeVar("T")


class Layout(StrEnum):
    """Where the weights of a model are."""

    HERE = "here"
    """In this process, which trains alone."""
    REPLICATED = "replicated"
    """Whole in every process; gradients are averaged (DDP)."""
    SHARDED = "sharded"
    """A part of each in every process; put together block by block while they are needed (FSDP2)."""


def layout_of(method: Method | None, gang: Gang) -> Layout:
    """Returns the layout that a method is trained in."""
    if gang.is_alone:
        return Layout.HERE
    return Layout.REPLICATED if isinstance(method, QloraMethod) else Layout.SHARDED


class _Computation(torch.nn.Module):  # type: ignore[misc]
    """Runs any function of a model as the forward pass of a module."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(self.model, *arguments)


class SpreadModel:
    """A model as the gang holds it.

    Args:
        model: The whole model, the same in every process. With SHARDED it may lie on the CPU: its parts go to `device`.
        layout: Where its weights go.
        gang: The processes.
        device: Where this process computes.
    """

    def __init__(self, model: Any, layout: Layout, gang: Gang, device: torch.device) -> None:
        self.model = model
        self.layout = layout
        self._gang = gang
        self._wrapped: Any = None
        if layout is Layout.SHARDED:
            self._wrapped = self._sharded(model, device)
        elif layout is Layout.REPLICATED:
            # Every process has loaded the same files by digest, so nothing is sent at the start. Looking for unused
            # parameters keeps the buckets as they were made: else DDP orders them anew after one step, and a resumed
            # run would add in another order than an unbroken one.
            self._wrapped = DistributedDataParallel(
                _Computation(model), init_sync=False, broadcast_buffers=False, find_unused_parameters=True
            )

    def _sharded(self, model: Any, device: torch.device) -> Any:
        mesh = init_device_mesh(device.type, (self._gang.size,))
        for block in decoder_blocks(unwrapped(model)):
            fully_shard(block, mesh=mesh)
        return fully_shard(_Computation(model), mesh=mesh)

    def backward(self, loss: Callable[..., torch.Tensor], *arguments: Any, divisor: float, is_last: bool) -> float:
        """Adds the gradient of a loss over a divisor, summed over all processes, and returns this one's loss.

        Collective: every process calls it equally often in a step, and says in the last call that it is.

        Args:
            loss: Function of the model and of `arguments` that gives a scalar.
            arguments: What else it takes.
            divisor: > 0; an infinite one lets a process keep step with the others and count nothing.
            is_last: Whether no other loss of the step follows.
        """
        if self.layout is Layout.HERE:
            value = loss(self.model, *arguments)
            (value / divisor).backward()
            return float(value.item())
        with contextlib.nullcontext() if self.layout is Layout.SHARDED or is_last else self._wrapped.no_sync():
            value = self._wrapped(loss, *arguments)
            # Both wrappers take the mean over the processes, and the sum is wanted.
            (value / (divisor / self._gang.size)).backward()
        return float(value.item())

    def measure(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a function of the model that keeps no gradient; collective when the model is sharded."""
        if self.layout is not Layout.SHARDED:
            return function(self.model, *arguments)
        try:
            with torch.no_grad():
                result: T = self._wrapped(function, *arguments)
            return result
        finally:
            self._wrapped.reshard()

    def clip(self, parameters: Mapping[str, torch.nn.Parameter], limit: float) -> float:
        """Scales the gradients down to a norm, and returns their norm before: over all parts of all processes."""
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def gathered(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns tensors whole: in the first process; the others help, and get an empty mapping. Collective.

        A sharded tensor comes out on the CPU, any other as it is.
        """
        whole = {}
        for name, tensor in tensors.items():
            # One at a time, so that no device holds more than one whole tensor.
            full = tensor.detach().full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
            if self._gang.is_first:
                whole[name] = full
        return whole

    def scattered(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Returns what the first process holds of a tensor, whole or in shards as `like` is. Collective.

        Args:
            tensor: On the CPU; in other processes than the first only its shape and format count.
            like: A tensor of this model. One of another shape than `tensor` does not count: then it comes out whole.
        """
        if self.layout is Layout.HERE:
            return tensor
        if tensor.is_meta:
            tensor = torch.empty_like(tensor, device="cpu")
        if isinstance(like, DTensor) and like.shape == tensor.shape:
            return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
        return self._gang.share(tensor.contiguous())
