"""Which layers get adapters when nothing is said: all linear ones of the decoder blocks, in every family."""

from typing import Any

import pytest
import torch
import transformers

from services.modelkit.adapters import attach_lora
from services.modelkit.layers import linear_names
from tuneforge.architectures import SUPPORTED_ARCHITECTURES
from tuneforge.specs.spec import LoraMethod

LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
TARGETS = dict.fromkeys(SUPPORTED_ARCHITECTURES, LLAMA) | {
    "GPT2LMHeadModel": ["c_attn", "c_fc", "c_proj"],
    "Phi3ForCausalLM": ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"],
    "PhiForCausalLM": ["dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj"],
}
SIDES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}


def tiny(class_name: str) -> Any:
    """Returns a random model of a class."""
    model_class = getattr(transformers, class_name)
    sides = GPT2 if class_name.startswith("GPT2") else SIDES
    torch.manual_seed(0)
    return model_class(model_class.config_class(**sides)).requires_grad_(False)


@pytest.mark.parametrize("class_name", SUPPORTED_ARCHITECTURES)
def test_every_family_has_its_targets(class_name: str) -> None:
    """All are found, each gets a gradient, and only they move; some of them may be named instead."""
    model = tiny(class_name)
    assert linear_names(model) == TARGETS[class_name]
    adapted = attach_lora(model, LoraMethod(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted(input_ids=torch.arange(3, 15)[None], labels=torch.arange(3, 15)[None]).loss.backward()
    moved = {name.split(".lora_")[0].rpartition(".")[2] for name, p in adapted.named_parameters() if p.grad is not None}
    assert sorted(moved) == TARGETS[class_name]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in adapted.parameters() if p.requires_grad)
    first = TARGETS[class_name][0]
    named = attach_lora(tiny(class_name), LoraMethod(rank=2, target_modules=(first,)), seed=0)
    moving = [name for name, parameter in named.named_parameters() if parameter.requires_grad]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in moving} == {first}
