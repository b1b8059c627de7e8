"""Tokens are drawn by the probabilities that were asked for, each row by its own seed."""

import pytest
import torch

from services.inference.engine.sampling import Sampler, choose


def sampler(seed: int, temperature: float = 1.0, top_p: float = 1.0, row: int = 0) -> Sampler:
    """Returns a row's sampler."""
    return Sampler.seeded(temperature=temperature, top_p=top_p, seed=seed, row=row)


def test_temperature_zero_takes_the_likeliest() -> None:
    """Without temperature each row gets its largest score, whatever its neighbours do."""
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 0.0, 1.0]])
    assert choose(logits, [sampler(1, 0.0), sampler(2, 0.0)]) == [1, 0]
    assert choose(logits, [sampler(1, 2.0), sampler(2, 0.0)])[1] == 0


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.6), (1.0, 0.95)])
def test_draws_follow_the_probabilities(temperature: float, top_p: float) -> None:
    """Over many draws each token comes as often as softmax and top-p say."""
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
    wanted = torch.softmax(scores / temperature, -1)
    running = 0.0
    for token in range(len(wanted)):  # already in order: the nucleus is a prefix
        is_in = running < top_p
        running += float(wanted[token])
        wanted[token] *= is_in
    wanted = wanted / wanted.sum()
    count = 4000
    tokens = choose(scores.expand(count, -1), [sampler(7, temperature, top_p, row) for row in range(count)])
    found = torch.bincount(torch.tensor(tokens), minlength=4) / count
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_a_row_draws_alike_in_any_company() -> None:
    """A row's tokens depend on its own seed and place only, not on who is computed beside it."""
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 700)
    alone_sampler, shared_sampler = sampler(3, 1.0, 0.9, row=1), sampler(3, 1.0, 0.9, row=1)
    alone = [choose(step[1:2], [alone_sampler])[0] for step in logits]
    others = (sampler(9, 0.7), sampler(4, 1.5, 0.5))
    shared = [choose(step, [others[0], shared_sampler, others[1]])[1] for step in logits]
    assert alone == shared


def test_rows_of_one_request_draw_apart() -> None:
    """The same prompt twice in a request gets two completions."""
    logits = torch.zeros(1, 1000)
    assert choose(logits, [sampler(1, row=0)]) != choose(logits, [sampler(1, row=1)])


def test_a_flat_nucleus_is_larger_than_the_first_look() -> None:
    """Top-p over thousands of equal tokens keeps the share that was asked for."""
    logits = torch.zeros(1, 4000)
    tokens = {choose(logits, [sampler(seed, 1.0, 0.5)])[0] for seed in range(200)}
    assert len(tokens) > 150
