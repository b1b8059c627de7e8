"""A reward model: one number for a text, read at its last token; of a pair the better text shall have the larger one.

The loss is that of Bradley and Terry (Ouyang et al., arXiv 2203.02155, section 3.5).

Suffixes: P pairs, 2P texts of these, D model width.
"""
# ruff: noqa: N806, N812  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import LossSum, hidden_at, unwrapped
from services.trainer.engine.tasks.pairs import PairPart, pair_parts, reward_figures


class RewardTask:
    """The chosen text of a pair shall be given more than the rejected one."""

    def parts(self, examples: Sequence[Example], limits: BatchLimits) -> Sequence[PairPart]:
        """Divides pairs into parts."""
        return pair_parts(examples, limits)

    def loss(self, model: Any, part: PairPart) -> LossSum:
        """Returns the sum over the pairs; measured are the rewards."""
        transformer = unwrapped(model)
        hidden_2PD = hidden_at(transformer.base_model, part.texts, part.texts.ends_R)
        # In float32, as whoever loads the model without a thought computes it: a margin is a small difference.
        with torch.autocast(hidden_2PD.device.type, enabled=False):
            rewards_2P = transformer.score(hidden_2PD.float())[:, 0]
        chosen_P, rejected_P = rewards_2P[0::2], rewards_2P[1::2]
        losses_P = -F.logsigmoid(chosen_P - rejected_P)
        return LossSum(losses_P.sum(), part.count, reward_figures(chosen_P, rejected_P))
