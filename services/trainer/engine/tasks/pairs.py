"""Pairs of texts side by side: the chosen and the rejected one of each row are computed at once.

Suffixes: P pairs.
"""
# ruff: noqa: N803, N806  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch

from services.trainer.engine.batches import BatchLimits, MicroBatch, divide, lay_out
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import token_losses


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPart:
    """Some pairs that are computed at once."""

    ids: tuple[str, ...]
    """Ids of the rows."""
    texts: MicroBatch
    """The chosen and the rejected text of the first row, then of the second, and so on."""
    learned: tuple[int, ...]
    """Supervised tokens of each of these texts."""

    @property
    def count(self) -> int:
        """What the loss is a mean over: the pairs."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return self.texts.tokens

    @property
    def computed_tokens(self) -> int:
        """Positions that are computed."""
        return self.texts.computed_tokens

    @property
    def supervised_tokens(self) -> int:
        """Tokens of all answers."""
        return self.texts.supervised_tokens

    def to(self, device: torch.device) -> Self:
        """Returns the part on a device."""
        return replace(self, texts=self.texts.to(device))


def pair_parts(examples: Sequence[Example], limits: BatchLimits) -> list[PairPart]:
    """Divides pairs into parts of like length; a pair is never torn apart.

    Args:
        examples: Rows with two texts each.
        limits: How much is computed at once; its rows are pairs.
    """
    # A pair counts as two texts of its longer one's length.
    lengths = [2 * max(len(text.tokens_T) for text in example.texts) for example in examples]
    return [_part([examples[index] for index in part], limits) for part in divide(lengths, limits)]


def _part(examples: Sequence[Example], limits: BatchLimits) -> PairPart:
    texts = [text for example in examples for text in example.texts]
    return PairPart(
        ids=tuple(example.id for example in examples),
        texts=lay_out(texts, limits),
        learned=tuple(len(text.labels_S) for text in texts),
    )


def log_probabilities(model: Any, part: PairPart) -> torch.Tensor:
    """Returns the log-probability of each answer, given what stands before it: float32 of shape (2P,), in nats."""
    losses_S = token_losses(model, part.texts)
    return -torch.stack([losses.sum() for losses in losses_S.split(list(part.learned))])


def reward_figures(chosen_P: torch.Tensor, rejected_P: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """Returns what is measured of the rewards of pairs, as sums over them."""
    margin_P = (chosen_P - rejected_P).detach()
    return {
        "rewards_chosen": chosen_P.detach().sum(),
        "rewards_rejected": rejected_P.detach().sum(),
        "rewards_margin": margin_P.sum(),
        "rewards_accuracy": (margin_P > 0).float().sum(),
    }
