"""Attention over packed rows: each row is computed as if it were alone."""

from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from services.trainer.engine import row_attention
from services.trainer.engine.batches import BatchLimits, line_batch, micro_batches, padded_batch
from services.trainer.engine.losses import supervised_loss
from services.trainer.engine.precision import autocast
from services.trainer.engine.recompute import apply_recompute
from tests.support.tiny_networks import FAMILIES, VOCABULARY, examples, network
from tuneforge.specs.spec import ActivationRecompute, ComputeType


def with_row_attention(family: str) -> Any:
    """Returns a random model whose weights move, with the attention under test."""
    row_attention.register()
    model = network(family).requires_grad_(True).train()
    model.set_attn_implementation(row_attention.NAME)
    return model


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns the gradients of a loss and drops them."""
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert found
    return found


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_do_not_see_each_other(family: str, compute: ComputeType) -> None:
    """Loss and gradients of rows in one line are those of the same rows in lines of their own."""
    model, rows = with_row_attention(family), examples([20, 1 + 4, 33, 12])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if compute is ComputeType.FP32 else {"rtol": 5e-2, "atol": 5e-2}
    with autocast(compute, torch.device("cpu")):
        alone = supervised_loss(model, padded_batch(rows)).sum
        expected = gradients(model, alone)
        together = supervised_loss(model, line_batch(rows)).sum
        found = gradients(model, together)
    torch.testing.assert_close(together, alone, rtol=tolerance["rtol"], atol=tolerance["atol"])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance)


def test_another_row_changes_nothing() -> None:
    """The loss of a row has the same bits whatever lies before and behind it in the line."""
    model = with_row_attention("llama")
    first, middle, last, other = examples([20, 15, 30, 25])

    def hidden(rows: list[Any], start: int) -> torch.Tensor:
        batch = line_batch(rows)
        decoder = model.get_decoder()
        output = decoder(
            input_ids=batch.input_ids_BT,
            position_ids=batch.position_ids_BT,
            use_cache=False,
            **row_attention.attention_arguments(decoder, batch),
        )
        found: torch.Tensor = output.last_hidden_state[0, start : start + 15]
        return found

    with torch.no_grad():
        torch.testing.assert_close(hidden([first, middle, last], 20), hidden([other, middle, last], 25))
        torch.testing.assert_close(hidden([first, middle, last], 20), hidden([middle, last], 0))


@pytest.mark.parametrize("window", [8, 64])
def test_a_sliding_window_holds_in_packed_rows(window: int) -> None:
    """Rows in one line see as far back as each alone, also where the window is shorter than a row."""
    row_attention.register()
    torch.manual_seed(0)
    sides = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=window, **sides)
    model, rows = MistralForCausalLM(config).eval(), examples([20, 5, 33, 12])
    model.set_attn_implementation("eager")
    alone = sum(supervised_loss(model, padded_batch([row])).sum for row in rows)
    model.set_attn_implementation(row_attention.NAME)
    torch.testing.assert_close(supervised_loss(model, line_batch(rows)).sum, alone, rtol=1e-5, atol=0)


def test_recompute_keeps_rows_apart() -> None:
    """The second computation of a block is told where rows lie too."""
    plain, again = with_row_attention("llama"), with_row_attention("llama")
    apply_recompute(again, ActivationRecompute.FULL)
    batch = line_batch(examples([9, 14]))
    expected = gradients(plain, supervised_loss(plain, batch).sum)
    for name, value in gradients(again, supervised_loss(again, batch).sum).items():
        assert torch.equal(value, expected[name]), name


def test_queries_come_in_float32_and_are_computed_in_the_format_of_the_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trap: rotated beside a float32 residual stream they are float32, which the kernel of a GPU does not take."""
    model, seen = with_row_attention("qwen2"), set()
    found = row_attention.products_dtype

    def noted(query: torch.Tensor) -> torch.dtype:
        seen.add((query.dtype, found(query)))
        return found(query)

    monkeypatch.setattr(row_attention, "products_dtype", noted)
    supervised_loss(model, line_batch(examples([9, 14])))
    with autocast(ComputeType.BF16, torch.device("cpu")):
        supervised_loss(model, line_batch(examples([9, 14])))
    assert seen == {(torch.float32, torch.float32), (torch.float32, torch.bfloat16)}


@pytest.mark.parametrize("takes", [{"window_size", "scale", "enable_gqa"}, {"window_size", "scale"}, {"is_causal"}])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_kernel_gets_what_its_release_takes(groups: int, takes: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, causal mask, grouped heads and scale reach it in the words of each release, with the rows' own result."""
    torch.manual_seed(0)
    lengths, bounds = [5, 1, 9], torch.tensor([0, 5, 6, 15], dtype=torch.int32)
    query, key, value = (torch.randn(1, heads, 15, 8) for heads in (4, 4 // groups, 4 // groups))

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *places: Any, **options: Any) -> torch.Tensor:
        assert options.keys() <= takes
        assert options.pop("window_size", None) == (-1, 0) or options.pop("is_causal", False)
        assert [each.tolist() for each in places[:2]] == [bounds.tolist()] * 2
        assert places[2:] == (9, 9)
        assert all(each.is_contiguous() for each in (q, k, v))
        rows = zip(*(each.transpose(0, 1).split(lengths, dim=1) for each in (q, k, v)), strict=True)
        outputs = [torch.nn.functional.scaled_dot_product_attention(*row, is_causal=True, **options) for row in rows]
        return torch.cat(outputs, dim=1).transpose(0, 1)

    monkeypatch.setattr(row_attention, "varlen_attn", kernel)
    monkeypatch.setattr(row_attention, "_TAKES", frozenset(takes))
    found = row_attention.packed_attention(query, key, value, bounds_R=bounds, longest=9, scaling=0.2)
    told = {"cu_seq_lens_q": bounds, "max_length_q": 9}
    expected, _ = row_attention.attend(torch.nn.Module(), query, key, value, None, scaling=0.2, **told)
    torch.testing.assert_close(found, expected)


def test_lines_are_packed_by_best_fit() -> None:
    """Where rows are computed alone, a step's rows are packed into as few lines as best fit finds, none twice."""
    rows = examples([60, 40, 35, 30, 20, 10, 5])
    limits = BatchLimits(max_rows=7, max_tokens=100, attention_share=1e-3, can_share=False, rows_apart=True)
    batches = micro_batches(rows, limits)
    assert [batch.input_ids_BT.shape for batch in batches] == [(1, 100), (1, 100)]
    assert sum(batch.tokens for batch in batches) == 200
    tokens = sorted(token for batch in batches for token in batch.input_ids_BT.flatten().tolist())
    assert tokens == sorted(token for row in rows for token in row.tokens_T.tolist())
