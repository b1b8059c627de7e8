"""What the fork server imports and remembers before it forks, so that a worker does neither."""

import importlib

import torch
import transformers

from services.grpckit.freed_memory import ALL, keep_freed_memory
from services.modelkit.adapters import attach_lora
from services.trainer.engine.documents import installed_packages
from services.trainer.engine.resolution import environment
from services.trainer.engine.token_cache import key_of
from tuneforge.specs.spec import LoraMethod

_HEAVY_MODULES = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.cache_utils",
    "peft.tuners.lora.model",
    "peft.tuners.lora.bnb",
    "bitsandbytes",
    "tokenizers",
    "safetensors.torch",
    "tuneforge.data._environment",
    "torch.optim.adamw",
    "torch.utils.checkpoint",
    "numpy",
    "cryptography.hazmat.primitives.serialization",
)
"""What transformers, PEFT and the check of a signature import at their first use. Importing computes nothing."""


def preload() -> None:
    """Imports all that a run needs, and does once what libraries remember, so that a forked child has both.

    Nothing is computed: a process that ran one parallel region with several threads cannot be forked safely. What a
    step frees is kept for the next one, in the children too.
    """
    keep_freed_memory(ALL)
    for module in _HEAVY_MODULES:
        importlib.import_module(module)
    _fill_caches()


def _fill_caches() -> None:
    """Does what the first run of a process does once: 70 ms for a model of any size, half of what a tiny one takes."""
    environment(torch.device("cpu"), threads=1)
    key_of({}, [])  # the digest of the code
    installed_packages()
    sides = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    with torch.device("meta"):  # shapes without numbers
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**sides, num_hidden_layers=1, num_key_value_heads=1)
        )
        attach_lora(model, LoraMethod(rank=1), 0)
