"""Micro-batches: every row once, within the limits, and two layouts with the same loss."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.batches import BatchLimits, divide, is_packing_cheaper, micro_batches, packed_batch, padded_batch
from services.trainer.losses import supervised_loss
from tests.support.tiny_networks import FAMILIES, examples, network_with_lora


def limits(max_rows: int = 100, max_tokens: int = 10_000, attention_share: float = 0.0) -> BatchLimits:
    """Returns limits that bound little unless told."""
    return BatchLimits(max_rows=max_rows, max_tokens=max_tokens, attention_share=attention_share)


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40),
    max_rows=st.integers(1, 10),
    max_tokens=st.integers(1, 600),
)
def test_rows_are_divided_within_the_limits(lengths: list[int], max_rows: int, max_tokens: int) -> None:
    """Each row comes once; no part has more rows or, with filling, more tokens than allowed, but for a single row."""
    parts = divide(lengths, limits(max_rows, max_tokens))
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) <= max_rows
        assert len(part) == 1 or len(part) * max(lengths[index] for index in part) <= max_tokens


def test_unlike_rows_are_packed_and_like_rows_padded() -> None:
    """Packing wins where much would be filling, and loses where attention to the whole line costs more."""
    assert is_packing_cheaper([100, 10, 10], limits(attention_share=1e-3))
    assert not is_packing_cheaper([100, 95, 90], limits(attention_share=1e-3))
    assert not is_packing_cheaper([100], limits(attention_share=1e-3))


def test_filling_is_not_counted() -> None:
    """The tokens of a micro-batch are those of its rows."""
    assert [batch.tokens for batch in micro_batches(examples([5, 9, 3]), limits(max_rows=2))] == [14, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_do_not_see_each_other(family: str) -> None:
    """The loss and the gradients of packed rows are those of each row computed alone."""
    rows = examples([7, 12, 3, 9])
    model = network_with_lora(family)
    alone = [supervised_loss(model, padded_batch([row])) for row in rows]
    torch.stack([loss.sum for loss in alone]).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    packed = supervised_loss(model, packed_batch(rows))
    packed.sum.backward()
    assert packed.sum.item() == pytest.approx(sum(loss.sum.item() for loss in alone), rel=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_filling_changes_nothing(family: str) -> None:
    """The loss of padded rows is that of each row computed alone."""
    rows = examples([7, 12, 3, 9])
    model = network_with_lora(family)
    alone = sum(supervised_loss(model, padded_batch([row])).sum.item() for row in rows)
    assert supervised_loss(model, padded_batch(rows)).sum.item() == pytest.approx(alone, rel=1e-5)


def test_a_mask_of_ones_would_mix_packed_rows() -> None:
    """The trap that the packed layout avoids: with an all-ones mask the same positions give other outputs."""
    rows = examples([7, 12, 9])
    model = network_with_lora("llama")
    batch = packed_batch(rows)
    decoder = model.get_base_model().get_decoder()
    with torch.no_grad():
        apart, mixed = (
            decoder(
                input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, attention_mask=mask, use_cache=False
            ).last_hidden_state
            for mask in (None, torch.ones_like(batch.input_ids_BT))
        )
    assert (apart - mixed).abs().max() > 0.1
