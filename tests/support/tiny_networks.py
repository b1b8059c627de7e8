"""Random networks of a few thousand weights, made in memory, for tests that need no files."""

from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from services.modelkit.adapters import attach_lora
from services.trainer.engine.corpus import Example
from tuneforge.specs.spec import LoraMethod

VOCABULARY = 97
FAMILIES = ("llama", "gpt2", "qwen2")


def network(family: str, *, seed: int = 0, vocabulary: int = VOCABULARY, positions: int = 128) -> Any:
    """Returns a random causal language model with frozen weights, without dropout."""
    torch.manual_seed(seed)
    sides = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    if family == "gpt2":
        dropouts = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        config = GPT2Config(
            vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=positions, **dropouts, **ends
        )
        model: Any = GPT2LMHeadModel(config)
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, num_key_value_heads=2, **sides))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, num_key_value_heads=2, **sides))
    model.set_attn_implementation("sdpa")
    return model.requires_grad_(False)


def network_with_lora(family: str, *, dropout: float = 0.0) -> Any:
    """Returns a random model with adapters that change its answers."""
    model = attach_lora(network(family), LoraMethod(rank=4, dropout=dropout), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def examples(lengths: list[int], *, seed: int = 0) -> list[Example]:
    """Returns rows of random tokens; roughly the last third of each is learned."""
    rng = np.random.default_rng(seed)
    return [
        Example(
            id=f"row-{index}",
            tokens_T=rng.integers(0, VOCABULARY, length).astype(np.int32),
            labels_S=np.arange(length - max(1, length // 3), length, dtype=np.int32),
        )
        for index, length in enumerate(lengths)
    ]
