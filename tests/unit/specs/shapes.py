"""A small Llama's shapes for tests, without weights."""

from __future__ import annotations

from tuneforge.specs.architecture import Architecture, TensorShape

LAYERS = 2
HIDDEN = 8
INNER = 16
VOCABULARY = 32
POSITIONS = 64


def small_llama() -> Architecture:
    """Returns two blocks of width 8 with 4 attention and 3 feed-forward layers, 32 tokens, 64 positions."""
    names = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (4, HIDDEN), "v_proj": (4, HIDDEN), "o_proj": (HIDDEN, HIDDEN)}
    feed = {"gate_proj": (INNER, HIDDEN), "up_proj": (INNER, HIDDEN), "down_proj": (HIDDEN, INNER)}
    tensors = [TensorShape(name="model.embed_tokens.weight", shape=(VOCABULARY, HIDDEN), dtype="F32")]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        tensors += [
            TensorShape(name=f"{prefix}.self_attn.{name}.weight", shape=shape, dtype="F32")
            for name, shape in names.items()
        ]
        tensors += [
            TensorShape(name=f"{prefix}.mlp.{name}.weight", shape=shape, dtype="F32") for name, shape in feed.items()
        ]
        tensors.append(TensorShape(name=f"{prefix}.input_layernorm.weight", shape=(HIDDEN,), dtype="F32"))
    return Architecture(
        class_name="LlamaForCausalLM", config={"max_position_embeddings": POSITIONS}, tensors=tuple(tensors)
    )
