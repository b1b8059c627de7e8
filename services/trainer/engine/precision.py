"""Number formats: which one a device computes natively, and how a run uses it.

With BF16 or FP16 the products run under autocast and the weights that move stay in float32. Frozen matrices are kept in
that format: autocast would round them to the same values before each product, so the numbers are the same, in half the
memory and without the casts.
"""

import contextlib
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from services.modelkit.hardware import computes_bf16
from tuneforge.specs.spec import ComputeType

_HALF = {ComputeType.BF16: torch.bfloat16, ComputeType.FP16: torch.float16}


def resolve_compute(compute: ComputeType, device: torch.device) -> ComputeType:
    """Returns what a device computes: AUTO is BF16 where that is native; FP16 is for GPUs, and AUTO elsewhere."""
    if compute is not ComputeType.AUTO and not (compute is ComputeType.FP16 and device.type != "cuda"):
        return compute
    return ComputeType.BF16 if computes_bf16(device) else ComputeType.FP32


def autocast(compute: ComputeType, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which a forward pass runs."""
    if compute in _HALF:
        context: contextlib.AbstractContextManager[Any] = torch.autocast(device.type, dtype=_HALF[compute])
        return context
    return contextlib.nullcontext()


def set_formats(model: torch.nn.Module, compute: ComputeType) -> None:
    """Sets the number format of every weight; weights in 4 bits stay, only the format of their products is set.

    Frozen linear layers get the format of the products, but for a head that shares its weights with the embedding.
    Weights that move, embeddings and norms are float32, so the residual stream is too.
    """
    product_format = _HALF.get(compute, torch.float32)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for module in model.modules():
        is_matrix = isinstance(module, torch.nn.Linear | Conv1D) and id(module.weight) not in embeddings
        if is_four_bit(module):
            module.compute_dtype = product_format
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                is_frozen_matrix = is_matrix and not parameter.requires_grad
                parameter.data = parameter.data.to(product_format if is_frozen_matrix else torch.float32)


def is_quantized(module: torch.nn.Module) -> bool:
    """Tells whether a layer is one of bitsandbytes, in 4 bits or in 8."""
    return is_four_bit(module) or hasattr(getattr(module, "weight", None), "has_fp16_weights")


def is_four_bit(module: torch.nn.Module) -> bool:
    """Tells whether a layer is one of bitsandbytes that keeps its weights in 4 bits."""
    return hasattr(module, "compute_dtype") and hasattr(module, "quant_state")
