"""Preference tuning: the model learns by how much more than its reference it prefers the better answer.

DPO (Rafailov et al., arXiv 2305.18290, equation 7) and IPO (Azar et al., arXiv 2310.12036, equation 17). The reference
is the model as it was when the run began (`reference.py`).

Suffixes: P pairs, 2P texts of these.
"""
# ruff: noqa: N803, N806, N812  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from services.trainer.engine.batches import BatchLimits
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import LossSum
from services.trainer.engine.tasks.pairs import PairPart, log_probabilities, pair_parts, reward_figures
from services.trainer.engine.tasks.reference import Reference
from tuneforge.specs.spec import PreferenceLoss
from tuneforge.specs.spec import PreferenceTask as PreferenceSpec


class PreferenceTask:
    """A loss over pairs of answers, against a reference."""

    def __init__(self, spec: PreferenceSpec, reference: Reference) -> None:
        """Takes the resolved task of a spec, and what the reference says."""
        self._spec = spec
        self._reference = reference

    def parts(self, examples: Sequence[Example], limits: BatchLimits) -> Sequence[PairPart]:
        """Divides pairs into parts."""
        return pair_parts(examples, limits)

    def loss(self, model: Any, part: PairPart) -> LossSum:
        """Returns the sum over the pairs; measured are the rewards, which are implicit: see `TaskMetrics`."""
        reference_2P = self._reference.log_probabilities(model, part)
        ratio_2P = log_probabilities(model, part) - reference_2P
        chosen_P, rejected_P = ratio_2P[0::2], ratio_2P[1::2]
        beta = self._spec.beta
        losses_P = self._losses(chosen_P - rejected_P)
        return LossSum(losses_P.sum(), part.count, reward_figures(beta * chosen_P, beta * rejected_P))

    def _losses(self, preference_P: torch.Tensor) -> torch.Tensor:
        beta, smoothing = self._spec.beta, self._spec.label_smoothing
        if self._spec.loss is PreferenceLoss.IPO:
            return (preference_P - 1 / (2 * beta)) ** 2
        return -(1 - smoothing) * F.logsigmoid(beta * preference_P) - smoothing * F.logsigmoid(-beta * preference_P)
