"""Losses as a sum and a count, so that a step's gradient is the mean over its tokens however it is cut into parts.

The vocabulary is the widest matrix of a small model, so the head is computed at supervised positions only: the decoder
runs without its head, the outputs that predict a supervised token are gathered, and the head sees nothing else.

Suffixes: B lines, T positions, S supervised tokens, D model width, V vocabulary.
"""
# ruff: noqa: N803, N806, N812  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from services.trainer.engine.batches import MicroBatch
from services.trainer.engine.gang import Gang
from services.trainer.engine.row_attention import attention_arguments
from tuneforge.specs.memory import CHUNK_TOKENS


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss that is not divided yet."""

    sum: torch.Tensor
    """Sum over what is counted, in nats; a float32 scalar with a gradient."""
    count: int
    """Tokens or pairs that it counts, >= 1."""
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """What the task measures beside it, summed over the same; scalars without a gradient."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What a forward and backward pass over the rows of a step gave."""

    loss: float
    """Mean over what the task counts: supervised tokens, in nats a token, or pairs."""
    tokens: int
    """Tokens of the rows, filling left out."""
    computed_tokens: int
    """Positions that were computed: common beginnings once, filling too."""
    supervised_tokens: int
    """Tokens that are learned."""
    figures: Mapping[str, float]
    """What the task measures beside it, as means over the same; often nothing."""


class Part(Protocol):
    """Rows of a step that are computed at once."""

    @property
    def count(self) -> int:
        """What the loss is a mean over: tokens or pairs, >= 1."""

    @property
    def tokens(self) -> int:
        """Tokens of its rows, filling left out."""

    @property
    def computed_tokens(self) -> int:
        """Positions that are computed: common beginnings once, filling too."""

    @property
    def supervised_tokens(self) -> int:
        """Tokens that are learned."""

    def to(self, device: torch.device) -> Self:
        """Returns the part on a device."""


@dataclass(slots=True)
class Totals:
    """What some parts hold together."""

    count: int = 0
    """What the loss is a mean over: tokens or pairs."""
    tokens: int = 0
    """Tokens, filling left out."""
    computed_tokens: int = 0
    """Positions that are computed: common beginnings once, filling too."""
    supervised_tokens: int = 0
    """Tokens that are learned."""

    def add(self, parts: Sequence[Part]) -> None:
        """Adds parts."""
        self.count += sum(part.count for part in parts)
        self.tokens += sum(part.tokens for part in parts)
        self.computed_tokens += sum(part.computed_tokens for part in parts)
        self.supervised_tokens += sum(part.supervised_tokens for part in parts)


class LossTotal:
    """Losses of several parts, added up over the processes of a gang."""

    def __init__(self, totals: Totals) -> None:
        """Takes what all parts of all processes hold."""
        self._totals = totals
        self._sum = 0.0
        self._figures: dict[str, list[torch.Tensor]] = {}

    def add(self, value: float, loss: LossSum, *, counts: bool = True) -> None:
        """Adds a part.

        Args:
            value: Its sum.
            loss: Its figures.
            counts: False for a part that another process adds.
        """
        self._sum += value if counts else 0.0
        for name, figure in loss.figures.items():
            self._figures.setdefault(name, []).append(figure if counts else torch.zeros_like(figure))

    def result(self, gang: Gang) -> StepLoss:
        """Returns the means over all parts, at least one; collective."""
        own = [self._sum, *(torch.stack(values).sum().item() for values in self._figures.values())]
        total, *figures = (sum(values) / self._totals.count for values in zip(*gang.gather(own), strict=True))
        return StepLoss(
            loss=total,
            tokens=self._totals.tokens,
            computed_tokens=self._totals.computed_tokens,
            supervised_tokens=self._totals.supervised_tokens,
            figures=dict(zip(self._figures, figures, strict=True)),
        )


def supervised_loss(model: Any, batch: MicroBatch) -> LossSum:
    """Returns the cross-entropy of the supervised tokens of a micro-batch.

    Args:
        model: A causal language model of transformers, perhaps with adapters of PEFT in it.
        batch: On the model's device.
    """
    losses = _in_chunks(model, batch, _head_loss)
    return LossSum(losses[0] if len(losses) == 1 else torch.stack(losses).sum(), len(batch.targets_S))


def token_losses(model: Any, batch: MicroBatch) -> torch.Tensor:
    """Returns the cross-entropy of each supervised token of a micro-batch, as float32 of shape (S,).

    Args:
        model: As for `supervised_loss`.
        batch: On the model's device.
    """
    return torch.cat(_in_chunks(model, batch, _head_losses))


def _in_chunks(model: Any, batch: MicroBatch, head: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    """Returns what a head makes of the supervised positions, a chunk at a time."""
    causal_lm = unwrapped(model)
    hidden_SD = hidden_at(causal_lm.get_decoder(), batch, batch.predictors_S)
    if len(batch.targets_S) <= CHUNK_TOKENS:
        return [head(causal_lm, hidden_SD, batch.targets_S)]
    chunks = zip(hidden_SD.split(CHUNK_TOKENS), batch.targets_S.split(CHUNK_TOKENS), strict=True)
    return [
        checkpoint(head, causal_lm, hidden_CD, targets_C, use_reentrant=False, preserve_rng_state=False)
        for hidden_CD, targets_C in chunks
    ]


def hidden_at(decoder: Any, batch: MicroBatch, positions_S: torch.Tensor) -> torch.Tensor:
    """Returns a decoder's outputs at some positions, of shape (S, D).

    Args:
        decoder: Of a model of transformers, without its head.
        batch: On the model's device.
        positions_S: Indices into the flattened B * T, int64.
    """
    output = decoder(
        input_ids=batch.input_ids_BT,
        position_ids=batch.position_ids_BT,
        **attention_arguments(decoder, batch),
        use_cache=False,  # with a cache, packed rows would not be kept apart
    )
    # index_select, because its backward pass adds in a fixed order on a CPU.
    return output.last_hidden_state.flatten(0, 1).index_select(0, positions_S)


def unwrapped(model: Any) -> Any:
    """Returns the transformers model inside a PEFT model; its layers keep their adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _head_loss(causal_lm: Any, hidden_SD: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(_logits(causal_lm, hidden_SD), targets_S, reduction="sum")


def _head_losses(causal_lm: Any, hidden_SD: torch.Tensor, targets_S: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(_logits(causal_lm, hidden_SD), targets_S, reduction="none")


def _logits(causal_lm: Any, hidden_SD: torch.Tensor) -> torch.Tensor:
    logits_SV = causal_lm.get_output_embeddings()(hidden_SD)
    if cap := getattr(causal_lm.config, "final_logit_softcapping", None):  # Gemma 2, arXiv 2408.00118, section 2
        logits_SV = torch.tanh(logits_SV / cap) * cap
    return logits_SV.float()
