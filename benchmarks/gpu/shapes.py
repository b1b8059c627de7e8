"""The models of the GPU benchmarks: exact shapes, random weights, no download; and what a GPU could reach at best."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from services.modelkit.initialization import INITIALIZATION

BF16_FLOPS = 790e12
"""Dense bfloat16 products of an H200 as measured, operations a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One model."""

    name: str
    """Short name."""
    architecture: str
    """Class in transformers."""
    config: dict[str, Any]
    """Fields of its configuration."""
    linear: float
    """Weights of the blocks' linear layers."""
    head: float
    """Weights of the head."""
    attention: float
    """Width of all attention heads together, times blocks."""

    def limit(self, method: str, length: float, learned_share: float) -> float:
        """Returns the most tokens a second that an H200 could train.

        Args:
            method: `lora`, `qlora` or `full`.
            length: Tokens of a row.
            learned_share: Share of the tokens that the head has to be computed at.
        """
        passes = 6 if method == "full" else 4
        products = passes * (self.linear + learned_share * self.head)
        return BF16_FLOPS / (products + 3.5 * 2 * length * self.attention)


def _qwen(name: str, width: int, inner: int, blocks: int, heads: int, kv_heads: int, *, is_tied: bool) -> Shape:
    head_width = width // heads
    linear = blocks * (2 * width * width + 2 * width * kv_heads * head_width + 3 * width * inner)
    config = {
        "vocab_size": 152064 if width > 2000 else 151936,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": is_tied,
        "use_sliding_window": False,
    }
    return Shape(
        name=name,
        architecture="Qwen2ForCausalLM",
        config=config,
        linear=linear,
        head=width * config["vocab_size"],
        attention=width * blocks,
    )


QWEN_7B = _qwen("Qwen2.5-7B", 3584, 18944, 28, 28, 4, is_tied=False)
QWEN_1P5B = _qwen("Qwen2.5-1.5B", 1536, 8960, 28, 12, 2, is_tied=True)
QWEN_0P5B = _qwen("Qwen2.5-0.5B", 896, 4864, 24, 14, 2, is_tied=True)
SMOLLM2_135M = Shape(
    name="SmolLM2-135M",
    architecture="LlamaForCausalLM",
    config={
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    linear=106e6,
    head=576 * 49152,
    attention=576 * 30,
)


def tiny(shape: Shape) -> Shape:
    """Returns a shape of the same family that a CPU trains in seconds: to see that everything runs."""
    config = shape.config | {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return Shape(
        name=f"tiny {shape.name}",
        architecture=shape.architecture,
        config=config,
        linear=2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128),
        head=64 * 512,
        attention=64 * 2,
    )


def random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """Returns the model with random weights, made where it will be."""
    import transformers

    model_class = getattr(transformers, shape.architecture)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            return model_class(model_class.config_class(**shape.config))
    finally:
        torch.set_default_dtype(before)


def write_config(shape: Shape, folder: Path) -> Path:
    """Writes a model without weight files, for whoever asks a folder what it would be; returns the folder."""
    import transformers

    config = getattr(transformers, shape.architecture).config_class(**shape.config, architectures=[shape.architecture])
    config.save_pretrained(folder)
    (folder / INITIALIZATION).write_text(json.dumps({"seed": 0}))
    return folder
