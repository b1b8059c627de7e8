"""Losses over pairs: those of the papers, whatever the layout, and a reference that is the model as it was."""
# ruff: noqa: N812  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import unwrapped
from services.trainer.engine.precision import autocast, set_formats
from services.trainer.engine.tasks import reference
from services.trainer.engine.tasks.pairs import log_probabilities, pair_parts
from services.trainer.engine.tasks.preference import PreferenceTask
from services.trainer.engine.tasks.reference import AdaptersOff, KeptReference, ReferenceRun, computed_reference
from services.trainer.engine.tasks.reward import RewardTask
from tests.support.tiny_networks import FAMILIES, VOCABULARY, network, network_with_lora
from tuneforge.specs import spec as specs
from tuneforge.specs.spec import ComputeType, PreferenceLoss

WIDE = BatchLimits(max_rows=8, max_tokens=10_000, attention_share=0.001)
LIMITS = {
    "padded": WIDE,
    "one by one": BatchLimits(max_rows=1, max_tokens=10_000, attention_share=0.001),
    "nothing shared": BatchLimits(max_rows=8, max_tokens=10_000, attention_share=0.001, can_share=False),
    "small": BatchLimits(max_rows=8, max_tokens=50, attention_share=1.0),
}


def pairs(lengths: list[tuple[int, int, int]], seed: int = 0) -> list[Example]:
    """Returns pairs of random tokens, each given by the lengths of its prompt and of its two answers."""
    rng = np.random.default_rng(seed)
    found = []
    for index, (prompt, chosen, rejected) in enumerate(lengths):
        begin = rng.integers(0, VOCABULARY, prompt)
        texts = [np.concatenate([begin, rng.integers(0, VOCABULARY, length)]) for length in (chosen, rejected)]
        learned = [np.arange(prompt, prompt + length) for length in (chosen, rejected)]
        found.append(
            Example(
                id=f"pair-{index}",
                tokens_T=np.concatenate(texts).astype(np.int32),
                labels_S=np.concatenate([learned[0], learned[1] + len(texts[0])]).astype(np.int32),
                boundary=len(texts[0]),
            )
        )
    return found


PAIRS = pairs([(6, 4, 2), (3, 5, 9), (8, 1, 3), (5, 2, 2)])


def plain_log_probability(model: Any, text: Example) -> torch.Tensor:
    """Computes every logit of a single text, then adds up what its answer is given."""
    logits = model(input_ids=torch.from_numpy(text.tokens_T).long()[None]).logits[0]
    chances = F.log_softmax(logits.float(), dim=-1)
    return torch.stack([chances[place - 1, int(text.tokens_T[place])] for place in text.labels_S.tolist()]).sum()


def plain_loss(model: Any, base: Any, task: specs.PreferenceTask) -> torch.Tensor:
    """Computes the mean loss over all pairs text by text, with a second model as the reference, after the papers."""
    losses = []
    for example in PAIRS:
        chosen, rejected = (
            plain_log_probability(model, text) - plain_log_probability(base, text).detach() for text in example.texts
        )
        difference = chosen - rejected
        if task.loss is PreferenceLoss.IPO:
            losses.append((difference - 1 / (2 * task.beta)) ** 2)
            continue
        right, wrong = torch.sigmoid(task.beta * difference), torch.sigmoid(-task.beta * difference)
        losses.append(-(1 - task.label_smoothing) * right.log() - task.label_smoothing * wrong.log())
    return torch.stack(losses).mean()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Returns the gradients of the weights that move, and drops them."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def backward(task: Any, model: Any, limits: BatchLimits) -> tuple[float, dict[str, float]]:
    """Adds up the gradients of all parts; returns the mean loss and the figures."""
    parts = task.parts(PAIRS, limits)
    assert sum(part.count for part in parts) == len(PAIRS)
    total, figures = (
        0.0,
        dict.fromkeys(("rewards_chosen", "rewards_rejected", "rewards_margin", "rewards_accuracy"), 0.0),
    )
    for part in parts:
        loss = task.loss(model, part)
        (loss.sum / len(PAIRS)).backward()
        total += loss.sum.item() / len(PAIRS)
        figures = {name: figures[name] + value.item() / len(PAIRS) for name, value in loss.figures.items()}
    return total, figures


@pytest.mark.parametrize("layout", LIMITS)
@pytest.mark.parametrize(
    "spec",
    [
        specs.PreferenceTask(beta=0.3),
        specs.PreferenceTask(beta=0.3, label_smoothing=0.2),
        specs.PreferenceTask(beta=0.3, loss=PreferenceLoss.IPO),
    ],
)
def test_the_loss_is_that_of_the_papers(spec: specs.PreferenceTask, layout: str) -> None:
    """Loss and gradients are those of a plain computation, text by text, against a second copy of the base."""
    model, base = network_with_lora("llama"), network("llama")
    expected = plain_loss(model, base, spec)
    expected.backward()
    wanted = gradients(model)
    found, figures = backward(PreferenceTask(spec, AdaptersOff()), model, LIMITS[layout])
    assert found == pytest.approx(expected.item(), rel=1e-4)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5)
    rewards = [
        [0.3 * (plain_log_probability(model, text) - plain_log_probability(base, text)).item() for text in pair.texts]
        for pair in PAIRS
    ]
    assert figures["rewards_chosen"] == pytest.approx(np.mean([chosen for chosen, _ in rewards]), rel=1e-3, abs=1e-5)
    assert figures["rewards_accuracy"] == np.mean([chosen > rejected for chosen, rejected in rewards])


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_that_are_switched_off_are_the_base(family: str) -> None:
    """The reference is the base's own answer, without dropout or gradient, and the model trains on as before."""
    model, base = network_with_lora(family, dropout=0.5).train(), network(family)
    (part,) = pair_parts(PAIRS, WIDE)
    before = torch.get_rng_state()
    found = AdaptersOff().log_probabilities(model, part)
    assert torch.equal(torch.get_rng_state(), before)
    assert not found.requires_grad
    torch.testing.assert_close(found, log_probabilities(base, part))
    assert model.training
    moving = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert moving == [name for name, _ in model.named_parameters() if "lora_" in name]


@pytest.mark.parametrize("with_dora", [False, True])
def test_in_bf16_the_reference_takes_no_gradient_away(with_dora: bool) -> None:
    """Under autocast a forward pass without gradients comes first: every adapter still gets the gradient it is due."""
    from services.modelkit.adapters import attach_lora

    lora = specs.LoraMethod(rank=4, use_dora=with_dora)
    model = attach_lora(network("llama"), lora, seed=1)
    set_formats(model, ComputeType.BF16)
    (part,) = pair_parts(PAIRS, WIDE)
    with autocast(ComputeType.BF16, torch.device("cpu")):
        values = AdaptersOff().log_probabilities(model, part).view(-1, 2).tolist()
    kept = KeptReference({row: (chosen, rejected) for row, (chosen, rejected) in zip(part.ids, values, strict=True)})
    results = []
    for each in (AdaptersOff(), kept):
        with autocast(ComputeType.BF16, torch.device("cpu")):
            PreferenceTask(specs.PreferenceTask(beta=0.3), each).loss(model, part).sum.backward()
        results.append(gradients(model))
    assert results[0].keys() == results[1].keys()
    assert any(gradient.abs().max() > 0 for gradient in results[0].values())
    assert all(torch.equal(gradient, results[1][name]) for name, gradient in results[0].items())


def reference_run(folder: Path, check_stop: Any = lambda: None, **inputs: str) -> ReferenceRun:
    """Returns how a reference is computed in a test."""
    return ReferenceRun(
        folder=folder,
        inputs=inputs,
        limits=WIDE,
        compute=ComputeType.FP32,
        device=torch.device("cpu"),
        check_stop=check_stop,
    )


def test_a_reference_is_computed_once_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended after the first block, the next attempt computes the second only; a damaged block is computed anew."""
    monkeypatch.setattr(reference, "BLOCK_ROWS", 2)
    computed: list[int] = []
    compute = reference._compute

    def counted(model: Any, block: Sequence[Example], run: ReferenceRun) -> torch.Tensor:
        computed.append(len(block))
        return compute(model, block, run)

    monkeypatch.setattr(reference, "_compute", counted)
    model = network("llama").requires_grad_(True).train()

    class Ended(Exception):
        pass

    def end_at_the_second() -> None:
        if computed:
            raise Ended

    with pytest.raises(Ended):
        computed_reference(model, PAIRS, reference_run(tmp_path, end_at_the_second))
    assert computed == [2]
    whole = computed_reference(model, PAIRS, reference_run(tmp_path))
    assert computed == [2, 2]
    assert computed_reference(model, PAIRS, reference_run(tmp_path)) == whole
    assert computed == [2, 2]
    (part,) = pair_parts(PAIRS, WIDE)
    torch.testing.assert_close(whole.log_probabilities(model, part), log_probabilities(model, part).detach())
    block = min(tmp_path.iterdir())
    content = bytearray(block.read_bytes())
    content[-1] ^= 1
    block.write_bytes(content)
    assert computed_reference(model, PAIRS, reference_run(tmp_path)) == whole
    assert computed == [2, 2, 2]
    computed_reference(model, PAIRS, reference_run(tmp_path, base="another"))
    assert computed == [2, 2, 2, 2, 2]
    assert model.training


@pytest.mark.parametrize("layout", LIMITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_reward_is_read_at_the_last_token(family: str, layout: str) -> None:
    """Loss and gradients are those of each text by itself, whatever it is computed together with."""
    model = network(family).requires_grad_(True)
    model.score = torch.nn.Linear(32, 1, bias=False)

    def plain(text: Example) -> torch.Tensor:
        hidden = model.base_model(input_ids=torch.from_numpy(text.tokens_T).long()[None]).last_hidden_state
        return model.score(hidden[0, -1])[0]

    rewards = [[plain(text) for text in example.texts] for example in PAIRS]
    expected = torch.stack([-F.logsigmoid(chosen - rejected) for chosen, rejected in rewards]).mean()
    expected.backward()
    wanted = gradients(model)
    found, figures = backward(RewardTask(), model, LIMITS[layout])
    assert found == pytest.approx(expected.item(), rel=1e-5)
    assert figures["rewards_accuracy"] == np.mean([(chosen > rejected).item() for chosen, rejected in rewards])
    assert unwrapped(model) is model
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-5)


def test_a_text_that_another_one_begins_with_has_its_own_end() -> None:
    """Where all texts share a beginning and one is nothing else, its last token is in what is shared."""
    first, second = np.arange(6), np.arange(9)
    example = Example(
        id="pair",
        tokens_T=np.concatenate([first, second]).astype(np.int32),
        labels_S=np.array([5, 6 + 7], dtype=np.int32),
        boundary=6,
    )
    (part,) = pair_parts([example], WIDE)
    assert part.texts.rows_T is not None
    assert part.texts.input_ids_BT[0, part.texts.ends_R].tolist() == [5, 8]
