"""From the rows of a step to the tensors of its micro-batches.

Rows of like length are computed together. Three layouts give the same loss; the cheapest one by arithmetic is taken:

- *padded*: one row a line, filled up on the right. Attention is causal, so no real token sees the filling and no mask
  is needed: the fast attention kernels stay open, at the price of computing the filling.
- *packed*: rows in one line without filling, by best fit (see `packing`). `position_ids` begin anew with each row and
  the attention mask stays unset: only then does transformers keep the rows apart (with a mask of ones it mixes them
  without a word). The mask that it builds makes attention cost the square of the whole line; with the attention of
  `row_attention` each row costs its own square only.
- *shared*: packed, with the beginning that all rows have in common (a system prompt) computed once. Outputs of a causal
  model depend on what stands before only, so they are the same for every row; so are the gradients, which add up. One
  dropout mask then serves the beginning of all rows. Needs a mask of its own.

Measured with SmolLM2-135M, LoRA, rows of 100 to 170 tokens, one thread of a Zen 4 core, in tokens a second: padded 326
with 2 rows at once, 293 with 4, 276 with 8; packed 287, 253 and 208. Rows of 90 tokens of which 45 are the same: 288
padded, 524 shared. Rows of 40 to 200 tokens: 278 padded, 277 packed under a mask, 288 packed with each row computed
alone, 306 with all eight rows in one line.

Suffixes: B lines, T positions in a line, S supervised tokens of the micro-batch, R rows.
"""
# ruff: noqa: N803, N806, N815  (tensors carry their shape in upper case at the end of their names)

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from services.trainer.engine.corpus import Example
from services.trainer.engine.packing import best_fit

_ATTENTION_SLOWNESS = 2.4
"""Rate of matrix products over that of attention with a mask: fits the measurements above (2.0 to 3.2)."""
_SHARED = -1
"""Row number of tokens that every row sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rows that are computed at once."""

    input_ids_BT: torch.Tensor
    """Token ids, int64."""
    position_ids_BT: torch.Tensor | None
    """Position of each token in its row, int64; None where every line is one row."""
    rows_T: torch.Tensor | None
    """Number of the row that each token belongs to, -1 for all rows, int64; None where transformers finds it out."""
    predictors_S: torch.Tensor
    """Positions whose output predicts a supervised token, as indices into the flattened B * T, int64."""
    targets_S: torch.Tensor
    """The supervised tokens, int64."""
    ends_R: torch.Tensor
    """Position of each row's last token, as an index into the flattened B * T, int64."""
    tokens: int
    """Tokens of its rows, filling left out."""

    @property
    def computed_tokens(self) -> int:
        """Positions that are computed: a common beginning once, filling too."""
        return int(self.input_ids_BT.numel())

    @property
    def supervised_tokens(self) -> int:
        """Tokens that are learned."""
        return len(self.targets_S)

    @property
    def count(self) -> int:
        """What the loss is a mean over: the learned tokens."""
        return len(self.targets_S)

    def to(self, device: torch.device) -> "MicroBatch":
        """Returns the micro-batch on a device."""
        positions, rows = self.position_ids_BT, self.rows_T
        return MicroBatch(
            input_ids_BT=self.input_ids_BT.to(device),
            position_ids_BT=None if positions is None else positions.to(device),
            rows_T=None if rows is None else rows.to(device),
            predictors_S=self.predictors_S.to(device),
            targets_S=self.targets_S.to(device),
            ends_R=self.ends_R.to(device),
            tokens=self.tokens,
        )

    def attention_mask(self) -> torch.Tensor | None:
        """Returns which position sees which, as bool of shape (1, 1, T, T); None where none must be given."""
        if self.rows_T is None:
            return None
        is_own = (self.rows_T[:, None] == self.rows_T) | (self.rows_T == _SHARED)
        return is_own.tril()[None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much is computed at once, and what decides between the layouts."""

    max_rows: int
    """Rows of a micro-batch, >= 1."""
    max_tokens: int
    """Positions of a micro-batch, >= 1; a single longer row is a micro-batch of its own."""
    attention_share: float
    """Cost of attention to one position over the cost of all else, for one token: see `attention_share`."""
    can_share: bool = True
    """Whether the model takes a mask of ours, which the shared layout needs."""
    rows_apart: bool = False
    """Whether the model's attention computes each row of a packed line alone (see `row_attention`)."""


def attention_share(*, width: int, layers: int, linear_parameters: int) -> float:
    """Returns the cost of letting one token see one position, in units of the cost of its matrix products.

    A token costs 2 * linear_parameters operations, and 4 * width * layers for each position it is compared with; these
    run at a lower rate.

    Args:
        width: Width of all attention heads together.
        layers: Decoder blocks.
        linear_parameters: Weights of the blocks' matrices, >= 1.
    """
    return _ATTENTION_SLOWNESS * 2.0 * width * layers / linear_parameters


def micro_batches(examples: Sequence[Example], limits: BatchLimits) -> list[MicroBatch]:
    """Returns the micro-batches of some rows, in the layouts that cost least."""
    lengths = [len(example.tokens_T) for example in examples]
    common = common_beginning(examples) if limits.can_share else 0
    apart = (
        best_fit(lengths, limits.max_tokens, max_rows=limits.max_rows) if limits.rows_apart else divide(lengths, limits)
    )
    cost_apart = sum(min(_cost_padded(part, lengths, limits), _cost_line(part, lengths, limits)) for part in apart)
    if common:
        together = divide(lengths, limits, common)
        if sum(_cost_line(part, lengths, limits, common) for part in together) < cost_apart:
            return [line_batch([examples[index] for index in part], common) for part in together]
    batches = []
    for part in apart:
        is_padded = len(part) == 1 or (
            not limits.rows_apart and _cost_padded(part, lengths, limits) <= _cost_line(part, lengths, limits)
        )
        rows = [examples[index] for index in part]
        batches.append(padded_batch(rows) if is_padded else line_batch(rows))
    return batches


def lay_out(examples: Sequence[Example], limits: BatchLimits) -> MicroBatch:
    """Lays out some rows at once, in their order, in the layout that costs least; at least one row."""
    lengths = [len(example.tokens_T) for example in examples]
    part = range(len(examples))
    common = common_beginning(examples) if limits.can_share else 0
    apart = _cost_padded(part, lengths, limits)
    packed, shared = _cost_line(part, lengths, limits), _cost_line(part, lengths, limits, common)
    if common and shared < min(apart, packed):
        return line_batch(examples, common)
    return padded_batch(examples) if apart <= packed else line_batch(examples)


def common_beginning(examples: Sequence[Example]) -> int:
    """Returns how many tokens all rows begin with in common; 0 for a single row."""
    if len(examples) < 2:
        return 0
    first, *others = (example.tokens_T for example in examples)
    common = len(first)
    for tokens_T in others:
        common = min(common, len(tokens_T))
        differs = np.flatnonzero(first[:common] != tokens_T[:common])
        common = int(differs[0]) if len(differs) else common
    return common


def divide(lengths: Sequence[int], limits: BatchLimits, common: int = 0) -> list[tuple[int, ...]]:
    """Divides rows into micro-batches of like length; deterministic.

    Args:
        lengths: Tokens of each row.
        limits: How much is computed at once.
        common: Tokens at the beginning of all rows that are computed once for each micro-batch; with 0, rows are
            counted with the filling that the longest one asks for.

    Returns:
        Indices into `lengths`, each once, longest rows first.
    """
    parts: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        is_full = not parts or len(parts[-1]) == limits.max_rows
        if not is_full:
            longer = [*parts[-1], index]
            size = _line(longer, lengths, common) if common else len(longer) * lengths[longer[0]]
            is_full = size > limits.max_tokens
        if is_full:
            parts.append([])
        parts[-1].append(index)
    return [tuple(part) for part in parts]


def padded_batch(examples: Sequence[Example]) -> MicroBatch:
    """Lays out one row a line."""
    longest = max(len(example.tokens_T) for example in examples)
    input_ids_BT = np.zeros((len(examples), longest), dtype=np.int64)  # any token may fill: nothing sees it
    for line, example in enumerate(examples):
        input_ids_BT[line, : len(example.tokens_T)] = example.tokens_T
    predictors_S = [line * longest + example.labels_S - 1 for line, example in enumerate(examples)]
    ends_R = [line * longest + len(example.tokens_T) - 1 for line, example in enumerate(examples)]
    return _micro_batch(examples, input_ids_BT, predictors_S, ends_R)


def line_batch(examples: Sequence[Example], common: int = 0) -> MicroBatch:
    """Lays out all rows in one line, their first `common` tokens once.

    Args:
        examples: The rows; all begin with the same `common` tokens.
        common: 0 packs whole rows; transformers then builds the mask.
    """
    own = [np.arange(common, len(example.tokens_T)) for example in examples]
    starts = list(accumulate((len(positions) for positions in own), initial=common))
    pieces = [example.tokens_T[common:] for example in examples]
    input_ids_T = np.concatenate([examples[0].tokens_T[:common], *pieces])
    position_ids_T = np.concatenate([np.arange(common), *own])
    rows_T = np.repeat([_SHARED, *range(len(own))], [common, *map(len, own)]) if common else None
    predictors_S = []
    for start, example in zip(starts, examples, strict=False):
        before = example.labels_S - 1
        predictors_S.append(np.where(before < common, before, before - common + start))
    ends_R = [start + len(each) - 1 if len(each) else common - 1 for start, each in zip(starts, own, strict=False)]
    return _micro_batch(examples, input_ids_T[None], predictors_S, ends_R, position_ids_T[None], rows_T)


def _line(part: Sequence[int], lengths: Sequence[int], common: int = 0) -> int:
    """Returns the positions of some rows in one line."""
    return common + sum(lengths[index] - common for index in part)


def _cost_line(part: Sequence[int], lengths: Sequence[int], limits: BatchLimits, common: int = 0) -> float:
    line = _line(part, lengths, common)
    if limits.rows_apart and not common:
        return line + limits.attention_share * sum(lengths[index] ** 2 for index in part) / 2
    return line * (1.0 + limits.attention_share * line)


def _cost_padded(part: Sequence[int], lengths: Sequence[int], limits: BatchLimits) -> float:
    longest = max(lengths[index] for index in part)
    return len(part) * longest * (1.0 + limits.attention_share * longest / 2)  # causal: half of the positions


def _micro_batch(
    examples: Sequence[Example],
    input_ids_BT: NDArray[np.integer],
    predictors_S: Sequence[NDArray[np.integer]],
    ends_R: Sequence[int],
    position_ids_BT: NDArray[np.integer] | None = None,
    rows_T: NDArray[np.integer] | None = None,
) -> MicroBatch:
    targets_S = [example.tokens_T[example.labels_S] for example in examples]
    return MicroBatch(
        input_ids_BT=_tensor(input_ids_BT),
        position_ids_BT=None if position_ids_BT is None else _tensor(position_ids_BT),
        rows_T=None if rows_T is None else _tensor(rows_T),
        predictors_S=_tensor(np.concatenate(predictors_S)),
        targets_S=_tensor(np.concatenate(targets_S)),
        ends_R=torch.tensor(ends_R, dtype=torch.int64),
        tokens=sum(len(example.tokens_T) for example in examples),
    )


def _tensor(array: NDArray[np.integer]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))
