"""A random BERT of a few thousand weights, with the tokenizer of the tiny model, written without torch."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from services.registry.models.expected_tensors import expected
from tests.support.tiny_model import make_tiny_model


def make_tiny_bert(folder: Path) -> Path:
    """Writes `config.json`, `model.safetensors` and a tokenizer into a folder and returns it."""
    make_tiny_model(folder)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    found = expected("BertModel", config)
    rng = np.random.default_rng(0)
    shapes = {**found.required, **found.optional}
    weights = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
