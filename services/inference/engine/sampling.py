"""Which token comes next: the likeliest, or one drawn.

Each row draws from a generator of its own, seeded by its request's seed and its place in it, so that what else runs at
the same time changes nothing. Temperature sharpens the probabilities (softmax of logits / temperature); top-p keeps the
smallest set of likeliest tokens whose probabilities reach p (Holtzman et al., arXiv 1904.09751, section 3.1).
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Final

import torch

_FIRST_CANDIDATES: Final = 256
"""Likeliest tokens looked at first for top-p: nearly always enough, and a hundredth of the cost of a full sort."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """How one row's tokens are chosen."""

    temperature: float
    """0 takes the likeliest token; else > 0, up to 2."""
    top_p: float
    """Share of the probability that is kept, 0 < p <= 1."""
    generator: torch.Generator
    """Where its random numbers come from, on the CPU."""

    @classmethod
    def seeded(cls, *, temperature: float, top_p: float, seed: int, row: int) -> "Sampler":
        """Makes the sampler of the row-th prompt of a request."""
        mixed = hashlib.sha256(f"{seed}:{row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
        return cls(temperature=temperature, top_p=top_p, generator=generator)


def choose(logits_BV: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:  # noqa: N803
    """Chooses the next token of each row.

    Args:
        logits_BV: scores of every token, B rows by V tokens.
        samplers: one a row.
    """
    drawn = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0]
    tokens: list[int] = logits_BV.argmax(-1).tolist()
    if drawn:
        chosen = _draw(logits_BV[drawn].float(), [samplers[row] for row in drawn])
        for row, token in zip(drawn, chosen, strict=True):
            tokens[row] = token
    return tokens


def _draw(logits_BV: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:  # noqa: N803
    device = logits_BV.device
    temperatures = torch.tensor([sampler.temperature for sampler in samplers], device=device)
    probabilities = torch.softmax(logits_BV / temperatures[:, None], -1)
    kept = torch.tensor([sampler.top_p for sampler in samplers], device=device, dtype=torch.float64)
    uniform = torch.tensor(
        [torch.rand(1, generator=sampler.generator, dtype=torch.float64).item() for sampler in samplers], device=device
    )
    # A row's draw must not depend on its neighbours: rows without top-p never go through the sorted path of the others.
    tokens = [0] * len(samplers)
    for is_cut in (False, True):
        rows = [row for row, sampler in enumerate(samplers) if (sampler.top_p < 1) is is_cut]
        if rows:
            inverse = _inverse_of_nucleus if is_cut else _inverse
            for row, token in zip(rows, inverse(probabilities[rows], uniform[rows], kept[rows]), strict=True):
                tokens[row] = token
    return tokens


def _inverse(probabilities: torch.Tensor, uniform: torch.Tensor, share: torch.Tensor) -> list[int]:
    """Finds where the running sum of each row passes `uniform` times `share` of its total."""
    running = probabilities.double().cumsum(-1)
    wanted = uniform * share.clamp(max=1) * running[:, -1]
    found = torch.searchsorted(running, wanted[:, None], right=True)[:, 0]
    return [int(token) for token in found.clamp(max=probabilities.shape[-1] - 1)]


def _inverse_of_nucleus(probabilities: torch.Tensor, uniform: torch.Tensor, share: torch.Tensor) -> list[int]:
    tokens = []
    for row in range(len(probabilities)):  # row by row: how far the sort must go differs
        count = min(_FIRST_CANDIDATES, probabilities.shape[-1])
        likeliest = torch.topk(probabilities[row], count)
        if likeliest.values.sum(dtype=torch.float64) < share[row]:
            likeliest = torch.sort(probabilities[row], descending=True)
        running = likeliest.values.double().cumsum(-1)
        # The set is the shortest prefix that reaches the share; the first token is always in it.
        size = int((running < share[row]).sum()) + 1
        place = _inverse(likeliest.values[:size][None], uniform[row : row + 1], torch.ones_like(share[:1]))[0]
        tokens.append(int(likeliest.indices[place]))
    return tokens
