"""The model classes that Tuneforge trains and serves: one list, read by the registry at import and by every loader.

A class stands here when its chat format, its adapters and its memory arithmetic were looked at. Code that comes with a
model is never run, so a class outside this list is refused, not tried.
"""

from typing import Final

SUPPORTED_ARCHITECTURES: Final[tuple[str, ...]] = (
    "GPT2LMHeadModel",
    "Gemma2ForCausalLM",
    "GemmaForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "PhiForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
)
"""Names as they stand in `architectures` of a model's `config.json`, in order of the alphabet."""
