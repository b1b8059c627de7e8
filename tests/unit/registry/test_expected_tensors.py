"""Shapes by arithmetic: every rule against the class that it is about."""

import json
from typing import Any

import pytest

from services.registry.models.expected_tensors import expected, plain
from tuneforge.architectures import KNOWN_ARCHITECTURES, ModelTask, task_of

SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL_GPT2 = {
    "vocab_size": 96, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VARIANTS: list[dict[str, Any]] = [{}, {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}]


@pytest.mark.heavy
@pytest.mark.parametrize("class_name", KNOWN_ARCHITECTURES)
def test_shapes_are_those_of_the_class(class_name: str) -> None:
    """Names and shapes are those that the class itself has, from a sparse configuration and from a full one."""
    import torch
    import transformers

    model_class = getattr(transformers, class_name)
    for variant in VARIANTS:
        given = dict(SMALL_GPT2 if class_name.startswith("GPT2") else SMALL) | variant
        if class_name == "BertModel":
            del given["num_key_value_heads"]
        config = model_class.config_class(**given)
        with torch.device("meta"):
            model = model_class(config)
        own = {name: tuple(each.shape) for name, each in model.named_parameters(remove_duplicate=False)}
        for source in (given, json.loads(config.to_json_string(use_diff=False))):
            found = expected(class_name, source)
            assert {**found.required, **found.optional} == own, (class_name, variant)


def test_a_tied_head_may_be_there_or_not() -> None:
    """A file may leave out what is the embedding once more."""
    tied = expected("LlamaForCausalLM", SMALL | {"tie_word_embeddings": True})
    assert "lm_head.weight" in tied.optional
    assert "lm_head.weight" in expected("LlamaForCausalLM", SMALL).required


def test_a_configuration_without_a_needed_number_is_told() -> None:
    """There is no default for the width of a model."""
    with pytest.raises(KeyError):
        expected("LlamaForCausalLM", {key: value for key, value in SMALL.items() if key != "hidden_size"})


@pytest.mark.parametrize(
    ("name", "bare"),
    [("transformer.h.0.ln_1.weight", "h.0.ln_1.weight"), ("bert.pooler.dense.bias", "pooler.dense.bias"), ("x", "x")],
)
def test_names_lose_the_part_that_was_saved(name: str, bare: str) -> None:
    """Whether a model was saved with its head or without, its weights have one name here."""
    assert plain(name) == bare


def test_every_known_class_has_a_task() -> None:
    """What the registry takes says what it does; what it does not know says nothing."""
    assert {task_of(name) for name in KNOWN_ARCHITECTURES} == set(ModelTask)
    assert task_of("MambaForCausalLM") is None
