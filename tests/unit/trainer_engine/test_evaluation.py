"""Measuring: the right mean, greedy completions, and a run that goes on as if nothing had been measured."""

import random

import numpy as np
import pytest
import torch

from services.modelkit.quantization import quantize_nf4
from services.trainer.engine.batches import BatchLimits, padded_batch
from services.trainer.engine.evaluation import complete, evaluate
from services.trainer.engine.losses import supervised_loss
from services.trainer.engine.precision import autocast, set_formats
from services.trainer.engine.tasks.language import LanguageTask
from tests.support.tiny_networks import FAMILIES, examples, network, network_with_lora
from tuneforge.specs.spec import ComputeType

LIMITS = BatchLimits(max_rows=3, max_tokens=64, attention_share=0.01)
FP32 = ComputeType.FP32


def test_the_loss_is_the_mean_over_tokens() -> None:
    """Long completions weigh more than short ones, however the rows are divided."""
    rows, model = examples([4, 30, 11, 18]), network("llama")
    losses = [supervised_loss(model, padded_batch([row])) for row in rows]
    found = evaluate(model, LanguageTask(), rows, LIMITS, FP32)
    assert found.supervised_tokens == sum(loss.count for loss in losses)
    assert found.loss == pytest.approx(sum(loss.sum.item() for loss in losses) / found.supervised_tokens, rel=1e-5)


def test_measuring_draws_from_no_generator() -> None:
    """Dropout is off while measuring and on again afterwards, and every generator stands where it stood."""
    model = network_with_lora("llama", dropout=0.5).train()
    expected = [random.Random(1).random(), np.random.RandomState(1).rand(), 0.0]
    torch.manual_seed(1)
    expected[2] = torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = evaluate(model, LanguageTask(), examples([9, 7]), LIMITS, FP32)
    assert evaluate(model, LanguageTask(), examples([9, 7]), LIMITS, FP32) == first
    complete(model, [[1, 2]], max_new_tokens=3, end_tokens=frozenset(), compute=FP32)
    assert [random.random(), np.random.rand(), torch.rand(1).item()] == expected
    assert model.training


@pytest.mark.parametrize("family", FAMILIES)
def test_completions_are_the_likeliest_tokens(family: str) -> None:
    """Prompts of unlike length completed together get what each alone gets from the plain definition."""
    model = network_with_lora(family)
    prompts = [[5, 6, 7, 8, 9], [3], [11, 12]]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    found = complete(model, prompts, max_new_tokens=6, end_tokens=frozenset(), compute=FP32)
    assert found == expected


def test_a_completion_ends_with_an_end_token() -> None:
    """The end token is left out, and one prompt's end does not end another's completion."""
    model = network_with_lora("llama")
    whole = complete(model, [[5, 6], [3]], max_new_tokens=6, end_tokens=frozenset(), compute=FP32)
    end = whole[0][2]
    found = complete(model, [[5, 6], [3]], max_new_tokens=6, end_tokens=frozenset({end}), compute=FP32)
    for tokens, cut in zip(whole, found, strict=True):
        assert cut == (tokens[: tokens.index(end)] if end in tokens else tokens)


def test_no_prompts_no_completions() -> None:
    """Nothing is computed for nothing."""
    assert complete(network("llama"), [], max_new_tokens=3, end_tokens=frozenset(), compute=FP32) == []


def test_measuring_leaves_4_bit_weights_as_they_are() -> None:
    """Bitsandbytes would repack 4-bit weights in evaluation mode, and the next backward pass would be wrong."""
    from services.modelkit.adapters import attach_lora
    from tuneforge.specs.spec import LoraMethod

    model = attach_lora(quantize_nf4(network("llama"), torch.float32, "cpu"), LoraMethod(rank=4), seed=0)
    set_formats(model, ComputeType.BF16)
    model.train()
    batch = padded_batch(examples([9, 7]))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        with autocast(ComputeType.BF16, torch.device("cpu")):
            supervised_loss(model, batch).sum.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
        evaluate(model, LanguageTask(), examples([5, 8]), LIMITS, ComputeType.BF16)
        complete(model, [[1, 2]], max_new_tokens=2, end_tokens=frozenset(), compute=ComputeType.BF16)
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
