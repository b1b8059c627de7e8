"""Which weights a configuration describes, by arithmetic: their names and shapes, without a library that builds models.

Used twice: weights that come in are held against their own configuration, and a configuration alone becomes a version
whose memory can be predicted. A test holds every rule against the class that it is about.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneforge.architectures import REWARD_ARCHITECTURES

Shapes = dict[str, tuple[int, ...]]

# What a class takes where its configuration says nothing; the numbers are those of the library's own configurations.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "Gemma2ForCausalLM": {"head_dim": 256, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "GemmaForCausalLM": {"head_dim": 256, "num_key_value_heads": 16, "tie_word_embeddings": True},
    "GPT2LMHeadModel": {"tie_word_embeddings": True},
    "MistralForCausalLM": {"num_key_value_heads": 8},
    "Qwen2ForCausalLM": {"num_key_value_heads": 32},
    "Qwen3ForCausalLM": {"num_key_value_heads": 32, "head_dim": 128},
    "SmolLM3ForCausalLM": {"num_key_value_heads": 4, "tie_word_embeddings": True},
}
_PREFIXES = ("transformer.", "model.", "bert.")
"""Parts of a name that a file may leave out or add, by which part of the model was saved."""
_BUFFERS = (
    ".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".position_ids", "embeddings.position_ids",
)  # fmt: skip
"""What older releases saved beside the weights; loaders pass it over."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The weights that a configuration describes."""

    required: Shapes
    optional: Shapes
    """Weights that a file may have too: a head that is tied, a pooler that is not used."""


def expected(class_name: str, config: Mapping[str, Any]) -> Expected:
    """Returns the weights of a model.

    Args:
        class_name: A known one.
        config: A checked configuration.

    Raises:
        KeyError: The configuration lacks a number that has no default.
    """
    generation = REWARD_ARCHITECTURES.get(class_name, class_name)
    values = {**_DEFAULTS.get(generation, {}), **{key: value for key, value in config.items() if value is not None}}
    rule = _RULES[generation]
    required = dict(rule(values))
    if class_name in REWARD_ARCHITECTURES:
        return Expected(required=_with_score(required, values), optional={})
    optional: Shapes = {}
    head = "lm_head.weight"
    if head in required and values.get("tie_word_embeddings", False):
        optional[head] = required.pop(head)
    if class_name == "BertModel":
        optional |= {name: required.pop(name) for name in list(required) if name.startswith("pooler.")}
    return Expected(required=required, optional=optional)


def _with_score(generation: Shapes, values: Mapping[str, Any]) -> Shapes:
    """Returns the weights of a model with a head for labels in place of the one for the vocabulary."""
    labels = values.get("id2label") or range(2)
    width = values.get("hidden_size") or values["n_embd"]
    decoder = {name: shape for name, shape in generation.items() if not name.startswith("lm_head.")}
    return decoder | {"score.weight": (len(labels), width)}


def plain(name: str) -> str:
    """Returns a weight's name without the prefix that depends on which part of a model was saved."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def is_buffer(name: str) -> bool:
    """Returns whether a name is that of a constant beside the weights."""
    return name.endswith(_BUFFERS)


def _llama(values: Mapping[str, Any], *, qkv_bias: bool = False, output_bias: bool = False) -> Iterator[Any]:
    """Llama and what is built like it: gated MLP, grouped heads, norms without bias."""
    width, inner, heads = values["hidden_size"], values["intermediate_size"], values["num_attention_heads"]
    groups = values.get("num_key_value_heads", heads)
    side = values.get("head_dim") or width // heads
    yield "model.embed_tokens.weight", (values["vocab_size"], width)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (values["vocab_size"], width)
    for number in range(values["num_hidden_layers"]):
        block = f"model.layers.{number}"
        yield f"{block}.input_layernorm.weight", (width,)
        yield f"{block}.post_attention_layernorm.weight", (width,)
        for name, outputs, inputs, has_bias in (
            ("self_attn.q_proj", heads * side, width, qkv_bias),
            ("self_attn.k_proj", groups * side, width, qkv_bias),
            ("self_attn.v_proj", groups * side, width, qkv_bias),
            ("self_attn.o_proj", width, heads * side, output_bias),
            ("mlp.gate_proj", inner, width, values.get("mlp_bias", False)),
            ("mlp.up_proj", inner, width, values.get("mlp_bias", False)),
            ("mlp.down_proj", width, inner, values.get("mlp_bias", False)),
        ):
            yield from _linear(f"{block}.{name}", outputs, inputs, has_bias)


def _attention_bias(values: Mapping[str, Any]) -> Iterator[Any]:
    has_bias = bool(values.get("attention_bias", False))
    yield from _llama(values, qkv_bias=has_bias, output_bias=has_bias)


def _mistral(values: Mapping[str, Any]) -> Iterator[Any]:
    yield from _llama({**values, "mlp_bias": False})


def _gemma(values: Mapping[str, Any]) -> Iterator[Any]:
    yield from _attention_bias({**values, "mlp_bias": False})


def _gemma2(values: Mapping[str, Any]) -> Iterator[Any]:
    yield from _gemma(values)
    for number in range(values["num_hidden_layers"]):
        for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"):
            yield f"model.layers.{number}.{name}.weight", (values["hidden_size"],)


def _qwen2(values: Mapping[str, Any]) -> Iterator[Any]:
    yield from _llama({**values, "mlp_bias": False}, qkv_bias=True)


def _qwen3(values: Mapping[str, Any]) -> Iterator[Any]:
    yield from _attention_bias({**values, "mlp_bias": False})
    for number in range(values["num_hidden_layers"]):
        for name in ("q_norm", "k_norm"):
            yield f"model.layers.{number}.self_attn.{name}.weight", (values["head_dim"],)


def _phi3(values: Mapping[str, Any]) -> Iterator[Any]:
    width, inner, heads = values["hidden_size"], values["intermediate_size"], values["num_attention_heads"]
    groups, side = values.get("num_key_value_heads", heads), width // heads
    yield "model.embed_tokens.weight", (values["vocab_size"], width)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (values["vocab_size"], width)
    for number in range(values["num_hidden_layers"]):
        block = f"model.layers.{number}"
        yield f"{block}.input_layernorm.weight", (width,)
        yield f"{block}.post_attention_layernorm.weight", (width,)
        yield f"{block}.self_attn.qkv_proj.weight", ((heads + 2 * groups) * side, width)
        yield f"{block}.self_attn.o_proj.weight", (width, heads * side)
        yield f"{block}.mlp.gate_up_proj.weight", (2 * inner, width)
        yield f"{block}.mlp.down_proj.weight", (width, inner)


def _phi(values: Mapping[str, Any]) -> Iterator[Any]:
    width, inner, heads = values["hidden_size"], values["intermediate_size"], values["num_attention_heads"]
    groups, side = values.get("num_key_value_heads", heads), width // heads
    yield "model.embed_tokens.weight", (values["vocab_size"], width)
    yield from _norm("model.final_layernorm", width)
    yield from _linear("lm_head", values["vocab_size"], width, True)
    for number in range(values["num_hidden_layers"]):
        block = f"model.layers.{number}"
        yield from _norm(f"{block}.input_layernorm", width)
        yield from _linear(f"{block}.self_attn.q_proj", heads * side, width, True)
        yield from _linear(f"{block}.self_attn.k_proj", groups * side, width, True)
        yield from _linear(f"{block}.self_attn.v_proj", groups * side, width, True)
        yield from _linear(f"{block}.self_attn.dense", width, heads * side, True)
        yield from _linear(f"{block}.mlp.fc1", inner, width, True)
        yield from _linear(f"{block}.mlp.fc2", width, inner, True)
        if values.get("qk_layernorm", False):
            yield from _norm(f"{block}.self_attn.q_layernorm", side)
            yield from _norm(f"{block}.self_attn.k_layernorm", side)


def _gpt2(values: Mapping[str, Any]) -> Iterator[Any]:
    """Linear weights lie with the input side first."""
    width = values["n_embd"]
    inner = values.get("n_inner", 4 * width)
    yield "transformer.wte.weight", (values["vocab_size"], width)
    yield "transformer.wpe.weight", (values["n_positions"], width)
    yield from _norm("transformer.ln_f", width)
    yield "lm_head.weight", (values["vocab_size"], width)
    for number in range(values["n_layer"]):
        block = f"transformer.h.{number}"
        yield from _norm(f"{block}.ln_1", width)
        yield from _norm(f"{block}.ln_2", width)
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            yield f"{block}.{name}.weight", (inputs, outputs)
            yield f"{block}.{name}.bias", (outputs,)


def _bert(values: Mapping[str, Any]) -> Iterator[Any]:
    width, inner = values["hidden_size"], values["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (values["vocab_size"], width)
    yield "embeddings.position_embeddings.weight", (values["max_position_embeddings"], width)
    yield "embeddings.token_type_embeddings.weight", (values.get("type_vocab_size", 2), width)
    yield from _norm("embeddings.LayerNorm", width)
    yield from _linear("pooler.dense", width, width, True)
    for number in range(values["num_hidden_layers"]):
        block = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            yield from _linear(f"{block}.attention.self.{name}", width, width, True)
        yield from _linear(f"{block}.attention.output.dense", width, width, True)
        yield from _norm(f"{block}.attention.output.LayerNorm", width)
        yield from _linear(f"{block}.intermediate.dense", inner, width, True)
        yield from _linear(f"{block}.output.dense", width, inner, True)
        yield from _norm(f"{block}.output.LayerNorm", width)


def _linear(name: str, outputs: int, inputs: int, has_bias: bool) -> Iterator[Any]:
    yield f"{name}.weight", (outputs, inputs)
    if has_bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[Any]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


_RULES: Mapping[str, Any] = {
    "BertModel": _bert,
    "GPT2LMHeadModel": _gpt2,
    "Gemma2ForCausalLM": _gemma2,
    "GemmaForCausalLM": _gemma,
    "LlamaForCausalLM": _attention_bias,
    "MistralForCausalLM": _mistral,
    "Phi3ForCausalLM": _phi3,
    "PhiForCausalLM": _phi,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "SmolLM3ForCausalLM": _attention_bias,
}
