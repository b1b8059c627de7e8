"""A batch of prompts that is computed together, one token a step for every row.

Prompts are padded on the left, so that all rows' next tokens stand in one column. A row that has ended stays in the
batch until enough have, then they are dropped together; a cancelled row ends at the next step.

Shapes: B rows, T columns (prompt and completion, padding included), V tokens of the vocabulary.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch

from services.inference.engine.cache import RoomyCache
from services.inference.engine.sampling import Sampler, choose
from services.inference.engine.text import TextStream

Finish = Literal["", "stop", "length"]

_PREFILL_TOKENS: Final = 8192
"""Tokens of prompts computed at once: bounds the memory of activations; more at once would not be faster."""
_SMALL_TOKENS: Final = 512
"""Tokens that are computed at once in any case: below that, a matrix product does not get faster by being smaller."""
_PADDING_SHARE: Final = 0.25
"""Most padding, in shares of the real tokens, in what is computed at once beyond that."""
_DROP_SHARE: Final = 0.2
"""Share of ended rows at which they are dropped: a drop copies the cache, an ended row costs its share each step."""


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One prompt and its completion so far."""

    request: int
    """Number of the request it belongs to."""
    index: int
    """Its place among the prompts of the request."""
    prompt: Sequence[int]
    """Tokens of the prompt, at least one."""
    limit: int
    """Most tokens of the completion, >= 1."""
    sampler: Sampler
    text: TextStream
    made: int = 0
    """Tokens made so far, the one that ends the completion included."""
    is_ended: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one step added to one row."""

    row: Row
    text: str
    finish: Finish


class Batch:
    """Rows that are computed together; make it with rows of one model, then call `step` until `is_done`."""

    def __init__(self, model: Callable[[], Any], stop_ids: frozenset[int], rows: Sequence[Row]) -> None:
        """Takes what gives the model before each step, the tokens that end a completion, and the rows."""
        self._give_model = model
        self._model = model()
        self._stop_ids = stop_ids
        self._rows = sorted(rows, key=lambda row: len(row.prompt))
        self._cache: RoomyCache | None = None
        self._mask_bt = torch.empty(0)
        self._last: list[int] = []
        self._has_window = getattr(self._model.config, "sliding_window", None) is not None

    @property
    def is_done(self) -> bool:
        """Whether every row has ended."""
        return all(row.is_ended for row in self._rows)

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are still held, ended ones among them."""
        return self._rows

    def cancel(self, request: int) -> None:
        """Ends the rows of a request without a further piece."""
        for row in self._rows:
            if row.request == request:
                row.is_ended = True

    def step(self) -> list[Piece]:
        """Computes the next token of every row and returns what it added; every live row gives at most one piece."""
        with torch.inference_mode():
            return self._step()

    def _step(self) -> list[Piece]:
        self._drop_ended()
        if self.is_done:
            return []
        self._model = self._give_model()
        logits = self._prefill() if self._cache is None else self._advance()
        tokens = choose(logits, [row.sampler for row in self._rows])
        self._last = tokens
        pieces = (self._take(row, token) for row, token in zip(self._rows, tokens, strict=True) if not row.is_ended)
        return [piece for piece in pieces if piece.text or piece.finish]

    def _take(self, row: Row, token: int) -> Piece:
        row.made += 1
        finish: Finish = ""
        text = "" if token in self._stop_ids else row.text.push(token)
        if token in self._stop_ids or row.text.is_stopped:
            finish = "stop"
        elif row.made >= row.limit:
            finish = "length"
        if finish:
            text += row.text.finish()
            finish = "stop" if row.text.is_stopped else finish
            row.is_ended = True
        return Piece(row=row, text=text, finish=finish)

    def _prefill(self) -> torch.Tensor:
        """Computes the prompts, some rows at a time, and returns the scores of the first new tokens, B x V."""
        device = self._model.device
        width = len(self._rows[-1].prompt)
        mask = torch.zeros(len(self._rows), width, dtype=torch.bool)
        for number, row in enumerate(self._rows):
            mask[number, width - len(row.prompt) :] = True
        self._mask_bt = mask.to(device)
        caches, logits = [], []
        for part in _parts([len(row.prompt) for row in self._rows]):
            rows = self._rows[part]
            columns = len(rows[-1].prompt)
            padded = [[0] * (columns - len(row.prompt)) + list(row.prompt) for row in rows]
            cache = RoomyCache()
            ids = torch.tensor(padded, device=device)
            logits.append(self._forward(ids, self._mask_bt[part, width - columns :], cache))
            caches.append(cache)
        self._cache = RoomyCache.stacked(caches)
        return torch.cat(logits)

    def _advance(self) -> torch.Tensor:
        """Computes one column and returns the scores of the next tokens, B x V."""
        assert self._cache is not None
        device = self._model.device
        ids = torch.tensor(self._last, device=device)[:, None]
        self._mask_bt = torch.cat([self._mask_bt, self._mask_bt.new_ones(len(self._rows), 1)], 1)
        return self._forward(ids, self._mask_bt, self._cache)

    def _forward(self, ids_bt: torch.Tensor, mask_bt: torch.Tensor, cache: RoomyCache) -> torch.Tensor:
        columns = ids_bt.shape[1]
        positions = (mask_bt.long().cumsum(1) - 1).clamp(min=0)[:, -columns:]
        mask: torch.Tensor | None = mask_bt
        if not self._is_padded(mask_bt, ids_bt):
            mask = None
        elif columns == 1 and not self._has_window:
            # One column sees all that is not padding; given so, the model need not derive it at every step.
            mask = mask_bt[:, None, None, :]
        output = self._model(
            input_ids=ids_bt,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return torch.as_tensor(output.logits[:, -1])

    def _is_padded(self, mask_bt: torch.Tensor, ids_bt: torch.Tensor) -> bool:
        """Tells whether a column is padding in some row; at a step that is known from the lengths of the prompts."""
        if ids_bt.shape[1] == 1 and self._cache is not None:
            return len({len(row.prompt) for row in self._rows}) > 1
        return not bool(mask_bt.all())

    def _drop_ended(self) -> None:
        live = [number for number, row in enumerate(self._rows) if not row.is_ended]
        if self._cache is None:
            self._rows = [self._rows[number] for number in live]
        elif live and len(self._rows) - len(live) >= max(1.0, _DROP_SHARE * len(self._rows)):
            index = torch.tensor(live, device=self._mask_bt.device)
            mask = self._mask_bt[index]
            first = int(mask.any(0).long().argmax())  # columns that are padding in every row left
            self._cache.keep(index, first)
            self._mask_bt = mask[:, first:]
            self._rows = [self._rows[number] for number in live]
            self._last = [self._last[number] for number in live]


def _parts(lengths: Sequence[int]) -> list[slice]:
    """Cuts rows, ordered by length, into parts that are computed at once with little padding."""
    parts: list[slice] = []
    first = tokens = 0
    for number, length in enumerate(lengths):
        padded = (number + 1 - first) * length
        limit = min(_PREFILL_TOKENS, max(_SMALL_TOKENS, int((1 + _PADDING_SHARE) * (tokens + length))))
        if number > first and padded > limit:
            parts.append(slice(first, number))
            first, tokens = number, 0
        tokens += length
    return [*parts, slice(first, len(lengths))]
