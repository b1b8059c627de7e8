"""Which layers of a model adapters and quantisation are about: the linear ones of its decoder blocks."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D


def decoder_linears(model: Any) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Module]]:
    """Yields (parent, name in the parent, layer) of every linear layer of the decoder blocks, in order.

    The output head and the embeddings are not among them. GPT-2's `Conv1D` is a linear layer with its weight
    transposed, and is yielded too.
    """
    for block in decoder_blocks(model):
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, torch.nn.Linear | Conv1D):
                    yield parent, name, layer


def decoder_blocks(model: Any) -> torch.nn.ModuleList:
    """Returns the decoder blocks of a causal language model, lowest first."""
    decoder = model.base_model if hasattr(model, "base_model") else model
    for name in ("layers", "h"):
        blocks = getattr(decoder, name, None)
        if isinstance(blocks, torch.nn.ModuleList):
            return blocks
    raise TypeError(f"{type(model).__name__} has no list of decoder blocks where supported models have it")


def linear_names(model: Any) -> list[str]:
    """Returns the names of the linear layers of the decoder blocks, each once, in order of the alphabet."""
    return sorted({name for _, name, _ in decoder_linears(model)})
