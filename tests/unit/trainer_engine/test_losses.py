"""The loss: the same as over all logits, whatever the model, the parts or the chunks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from services.trainer.engine import losses
from services.trainer.engine.batches import BatchLimits, MicroBatch, micro_batches, padded_batch
from services.trainer.engine.losses import supervised_loss
from tests.support.tiny_networks import FAMILIES, examples, network, network_with_lora


def loss_over_all_logits(model: Any, batch: MicroBatch) -> torch.Tensor:
    """Computes every logit of the vocabulary at every position, then leaves out what is not learned."""
    logits = model(input_ids=batch.input_ids_BT).logits.flatten(0, 1)
    return F.cross_entropy(logits[batch.predictors_S], batch.targets_S, reduction="sum")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("with_adapters", [False, True])
def test_the_head_at_supervised_positions_gives_the_plain_loss(family: str, with_adapters: bool) -> None:
    """Loss and gradients are those of the model's own logits at all positions."""
    model = network_with_lora(family) if with_adapters else network(family).requires_grad_(True)
    batch = padded_batch(examples([9, 5, 14]))
    expected = loss_over_all_logits(model, batch)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = supervised_loss(model, batch)
    found.sum.backward()
    torch.testing.assert_close(found.sum, expected)
    assert found.count == len(batch.targets_S) == 8
    assert gradients
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_the_loss_counts_completions_only() -> None:
    """The gradient of the loss does not change with what the prompt's own tokens would have been predicted as."""
    batch = padded_batch(examples([9]))
    assert batch.predictors_S.tolist() == [5, 6, 7]
    assert batch.targets_S.tolist() == batch.input_ids_BT[0, 6:].tolist()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits computed in chunks, and again in the backward pass, give the same loss and gradients."""
    batch = padded_batch(examples([20, 15]))
    model = network_with_lora("llama")
    results = []
    for chunk in (1024, 4):
        monkeypatch.setattr(losses, "CHUNK_TOKENS", chunk)
        model.zero_grad()
        loss = supervised_loss(model, batch)
        loss.sum.backward()
        results.append((loss.sum.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    torch.testing.assert_close(results[0], results[1])


def test_many_parts_are_one_large_batch() -> None:
    """Gradients accumulated over parts of unlike size, each divided by the whole count, are those of one batch."""
    rows = examples([4, 30, 8, 17, 25])
    model = network_with_lora("llama")
    gradients = []
    for max_rows in (5, 2, 1):
        model.zero_grad()
        batches = micro_batches(rows, BatchLimits(max_rows=max_rows, max_tokens=10_000, attention_share=1.0))
        count = sum(len(batch.targets_S) for batch in batches)
        for batch in batches:
            (supervised_loss(model, batch).sum / count).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[2], rtol=1e-4, atol=1e-6)


def test_gemma_2_caps_its_logits() -> None:
    """A model that caps its logits is learned with capped logits."""
    model = network("llama")
    batch = padded_batch(examples([9]))
    plain = supervised_loss(model, batch).sum
    model.config.final_logit_softcapping = 0.1
    capped = supervised_loss(model, batch).sum
    hidden = model.get_decoder()(input_ids=batch.input_ids_BT).last_hidden_state.flatten(0, 1)[batch.predictors_S]
    logits = torch.tanh(model.lm_head(hidden) / 0.1) * 0.1
    torch.testing.assert_close(capped, F.cross_entropy(logits, batch.targets_S, reduction="sum"))
    assert plain != capped
