"""Names of weights tell which of them are frozen."""

import pytest

from tuneforge.specs.freezing import count_layers, is_frozen


@pytest.mark.parametrize(
    ("name", "freeze_layers", "expected"),
    [
        ("model.embed_tokens.weight", 0, False),
        ("model.embed_tokens.weight", 1, True),
        ("transformer.wte.weight", 2, True),
        ("transformer.wpe.weight", 2, True),
        ("model.layers.0.self_attn.q_proj.weight", 1, True),
        ("model.layers.1.self_attn.q_proj.weight", 1, False),
        ("model.layers.10.mlp.up_proj.weight", 2, False),
        ("transformer.h.1.attn.c_attn.bias", 2, True),
        ("model.norm.weight", 9, False),
        ("lm_head.weight", 9, False),
    ],
)
def test_the_lowest_blocks_and_the_embeddings_are_frozen(name: str, freeze_layers: int, expected: bool) -> None:
    """A block by its number, the embeddings with the first block, norm and head never."""
    assert is_frozen(name, freeze_layers) is expected


def test_blocks_are_counted() -> None:
    """The highest number of a block and one more; 0 without blocks."""
    assert count_layers(["model.layers.0.a.weight", "model.layers.11.b.weight", "lm_head.weight"]) == 12
    assert count_layers(["lm_head.weight"]) == 0
