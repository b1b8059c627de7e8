"""Micro-batches: every row once, within the limits, and two layouts with the same loss."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.engine.batches import (
    BatchLimits,
    common_beginning,
    divide,
    line_batch,
    micro_batches,
    padded_batch,
)
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import supervised_loss
from tests.support.tiny_networks import FAMILIES, examples, network_with_lora


def limits(max_rows: int = 100, max_tokens: int = 10_000, attention_share: float = 0.0) -> BatchLimits:
    """Returns limits that bound little unless told."""
    return BatchLimits(max_rows=max_rows, max_tokens=max_tokens, attention_share=attention_share)


def beginning_alike(lengths: list[int], *, common: int) -> list[Example]:
    """Returns rows of random tokens that begin with the same `common` tokens and differ in the next one."""
    rows = examples(lengths)
    for number, row in enumerate(rows):
        row.tokens_T[:common] = rows[0].tokens_T[:common]
        if common < len(row.tokens_T):
            row.tokens_T[common] = number
    return rows


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


def layouts(rows: list[Example], **options: Any) -> list[str]:
    """Returns the layout of each micro-batch."""
    batches = micro_batches(rows, limits(attention_share=1e-3, **options))
    return [
        "shared" if batch.rows_T is not None else "packed" if batch.position_ids_BT is not None else "padded"
        for batch in batches
    ]


def test_the_cheapest_layout_is_taken() -> None:
    """Unlike rows are packed, like rows padded, and rows with a common beginning share it."""
    assert layouts(examples([100, 10, 10])) == ["packed"]
    assert layouts(examples([100, 95, 90])) == ["padded"]
    assert layouts(examples([100])) == ["padded"]
    assert layouts(beginning_alike([100, 95, 90], common=50)) == ["shared"]
    assert layouts(beginning_alike([100, 95, 90], common=3)) == ["padded"]


@given(lengths=st.lists(st.integers(6, 60), min_size=2, max_size=20), common=st.integers(1, 5), most=st.integers(1, 99))
def test_a_shared_beginning_counts_once_in_each_part(lengths: list[int], common: int, most: int) -> None:
    """A part is as long as its rows, but for what they share; each row comes once."""
    parts = divide(lengths, limits(max_tokens=most), common)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or common + sum(lengths[index] - common for index in part) <= most


def test_common_beginnings() -> None:
    """The common beginning is that of all rows, up to a whole row, and a single row shares nothing."""
    rows = beginning_alike([12, 9, 15], common=6)
    assert common_beginning(rows) == 6
    assert common_beginning([rows[0], rows[0]]) == 12
    assert common_beginning(rows[:1]) == 0
    assert common_beginning(examples([5, 5])) == 0


def test_filling_is_not_counted() -> None:
    """The tokens of a micro-batch are those of its rows."""
    assert [batch.tokens for batch in micro_batches(examples([5, 9, 3]), limits(max_rows=2))] == [14, 3]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("common", [0, 1, 3, 6, 7])
def test_rows_in_one_line_do_not_see_each_other(family: str, common: int) -> None:
    """Loss and gradients of packed rows are those of each row alone, also where they share a beginning."""
    rows = beginning_alike([7, 12, 9, 7], common=7)
    model = network_with_lora(family)
    alone = [supervised_loss(model, padded_batch([row])) for row in rows]
    torch.stack([loss.sum for loss in alone]).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    line = supervised_loss(model, line_batch(rows, common))
    line.sum.backward()
    assert line.count == sum(loss.count for loss in alone)
    assert line.sum.item() == pytest.approx(sum(loss.sum.item() for loss in alone), rel=1e-5)
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
    batch = line_batch(rows)
    decoder = model.get_base_model().get_decoder()
    with torch.no_grad():
        apart, mixed = (
            decoder(
                input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT, attention_mask=mask, use_cache=False
            ).last_hidden_state
            for mask in (None, torch.ones_like(batch.input_ids_BT))
        )
    assert (apart - mixed).abs().max() > 0.1
