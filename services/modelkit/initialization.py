"""A model from its configuration alone: weights drawn from a recorded seed, the same at every load.

Weights are drawn in float32 on the CPU, whatever format and device are asked for, and their digest says which ones came
out. Equal seeds give equal weights with equal versions of torch and transformers on processors of one kind; where the
digest differs, an adapter that was trained on other weights is refused instead of being put on strange ones.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from services.modelkit.faults import InvalidModel

INITIALIZATION = "initialization.json"
METADATA = "metadata.json"
INITIAL_WEIGHTS = "base_initial_weights_sha256"
"""Key of an adapter's `metadata.json`: the digest of the weights that it was trained on."""
ATTRIBUTE = "initial_weights_sha256"
"""Attribute of a model whose weights were drawn."""


def seed_of(folder: Path) -> int | None:
    """Returns the seed of a configuration alone; None for a model with weight files.

    Raises:
        InvalidModel: The file that says it is malformed.
    """
    path = folder / INITIALIZATION
    if not path.is_file():
        return None
    try:
        seed = json.loads(path.read_text(encoding="utf-8"))["seed"]
    except (ValueError, KeyError, TypeError):
        seed = None
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise InvalidModel(f"{INITIALIZATION} names no seed.", 'Write {"seed": N} with a whole number from 0 on.')
    return seed


def draw_model(model_class: Any, folder: Path, seed: int) -> Any:
    """Builds a model and draws its weights in float32; the global random state is left as it was.

    Args:
        model_class: A supported class of transformers.
        folder: With `config.json`.
        seed: Of the weights.
    """
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    config.dtype = torch.float32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model = model.to(torch.float32)
    setattr(model, ATTRIBUTE, weights_digest(model))
    return model


def weights_digest(model: Any) -> str:
    """Returns the SHA-256 over names, shapes and float32 bytes of a model's weights, in order of their names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {list(parameter.shape)}\n".encode())
        digest.update(parameter.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_drawn(model: Any, adapter: Path) -> None:
    """Refuses an adapter that was trained on other drawn weights than those of a model.

    Args:
        model: With or without adapters.
        adapter: Folder of the adapter; one that does not say what it was trained on is taken.

    Raises:
        InvalidModel: The digests differ.
    """
    found = getattr(model, ATTRIBUTE, None)
    path = adapter / METADATA
    if found is None or not path.is_file():
        return
    try:
        expected = json.loads(path.read_text(encoding="utf-8")).get(INITIAL_WEIGHTS)
    except (ValueError, AttributeError):
        return
    if expected and expected != found:
        raise InvalidModel(
            f"The adapter was trained on drawn weights with the digest {expected}, and {found} was drawn here.",
            "Use the versions of torch and transformers that it was trained with, on the same kind of processor.",
        )
