"""The model classes that Tuneforge knows: one list, read by the registry at import and by every loader.

A class stands here when its chat format, its adapters and its memory arithmetic were looked at. Code that comes with a
model is never run, so a class outside this list is refused, not tried.
"""

from enum import StrEnum
from typing import Final


class ModelTask(StrEnum):
    """What a model does, in the words that model hubs use."""

    TEXT_GENERATION = "text-generation"
    FEATURE_EXTRACTION = "feature-extraction"
    TEXT_CLASSIFICATION = "text-classification"


FRAMEWORK: Final = "transformers"
"""What the files of every model version are made for: a folder that `transformers` reads."""

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
"""Trained and served. Names as in `architectures` of a model's `config.json`, in order of the alphabet."""

EMBEDDING_ARCHITECTURES: Final[tuple[str, ...]] = ("BertModel",)
"""Kept by the registry, but neither trained nor served yet."""

_GENERATION_SUFFIXES: Final = ("ForCausalLM", "LMHeadModel")


def reward_class(class_name: str) -> str:
    """Returns the class of the reward models that are made of a supported one; their one output is called `score`."""
    for suffix in _GENERATION_SUFFIXES:
        class_name = class_name.removesuffix(suffix)
    return f"{class_name}ForSequenceClassification"


REWARD_ARCHITECTURES: Final[dict[str, str]] = {reward_class(name): name for name in SUPPORTED_ARCHITECTURES}
"""Class of a reward model -> the one that it is made of. Results of training; neither trained further nor served."""

KNOWN_ARCHITECTURES: Final[tuple[str, ...]] = tuple(
    sorted((*SUPPORTED_ARCHITECTURES, *EMBEDDING_ARCHITECTURES, *REWARD_ARCHITECTURES))
)
"""What the registry takes."""


def task_of(class_name: str) -> ModelTask | None:
    """Returns what models of a class do; None for a class that is not known."""
    if class_name in SUPPORTED_ARCHITECTURES:
        return ModelTask.TEXT_GENERATION
    if class_name in REWARD_ARCHITECTURES:
        return ModelTask.TEXT_CLASSIFICATION
    return ModelTask.FEATURE_EXTRACTION if class_name in EMBEDDING_ARCHITECTURES else None
