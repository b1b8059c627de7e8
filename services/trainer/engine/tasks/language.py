"""Learning to write: supervised fine-tuning and continued pre-training, which differ in what is learned of a row."""

from collections.abc import Sequence
from typing import Any

from services.trainer.engine.batches import BatchLimits, MicroBatch, micro_batches
from services.trainer.engine.corpus import Example
from services.trainer.engine.losses import LossSum, supervised_loss


class LanguageTask:
    """The cross-entropy of the learned tokens; texts that are computed together do not see each other."""

    def parts(self, examples: Sequence[Example], limits: BatchLimits) -> Sequence[MicroBatch]:
        """Divides rows into micro-batches of like length."""
        return micro_batches(examples, limits)

    def loss(self, model: Any, part: MicroBatch) -> LossSum:
        """Returns the sum over the learned tokens."""
        return supervised_loss(model, part)
