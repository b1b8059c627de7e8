"""Which weights stay as they are when the lowest layers of a model are frozen: plain arithmetic over their names."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_\w+|wte|wpe|word_embeddings|position_embeddings)\.weight$")


def is_frozen(name: str, freeze_layers: int) -> bool:
    """Tells whether a weight is frozen.

    Args:
        name: Of the weight, e.g. `model.layers.3.mlp.up_proj.weight`.
        freeze_layers: How many of the lowest decoder blocks are frozen; with the first of them the embeddings are too,
            and so is an output head that shares their weight.
    """
    block = _BLOCK.search(name)
    if block is not None:
        return int(block.group(1)) < freeze_layers
    return freeze_layers > 0 and _EMBEDDING.search(name) is not None


def count_layers(names: list[str]) -> int:
    """Returns the number of decoder blocks that weights with these names belong to."""
    return max((int(block.group(1)) + 1 for name in names if (block := _BLOCK.search(name))), default=0)
