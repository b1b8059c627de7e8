"""From text to tokens, and which of the tokens are learned.

Special tokens are added once: what a chat template writes is tokenised as it stands; plain text gets the tokenizer's
beginning-of-text token, if it has one and the text does not begin with it.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from tuneforge.data.faults import OverlongRow, RenderingCode, RenderingError
from tuneforge.data.rendering import ChatFormat, Rendering
from tuneforge.data.rows import Row, Turn
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.specs.spec import OverlongPolicy

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_ROWS_AT_ONCE: Final = 256
"""Rows whose tokens are made together: enough for all cores, and some hundred kilobytes of text."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MarkedRow:
    """A whole row as tokens, before anything is cut."""

    text: str
    """What the model reads, without the token in front that `prefix` counts."""
    ids: tuple[int, ...]
    """Token ids, prompt and completion together."""
    supervised: tuple[bool, ...]
    """Whether each token is learned; the first one never is, since a token is predicted from those before it."""
    offsets: tuple[tuple[int, int], ...]
    """Where each token stands in `text`, as half-open spans of characters; (0, 0) for those of the prefix."""
    prefix: int
    """Tokens put in front of the text: 1 for a beginning-of-text token that the text does not bring, else 0."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """A row as tokens, as it is learned."""

    ids: tuple[int, ...]
    """Token ids, prompt and completion together."""
    supervised: tuple[bool, ...]
    """Whether each token is learned, i.e. is a label; one entry a token."""
    is_cut: bool = False
    """Whether the row was longer than allowed and lost its end."""

    @property
    def num_supervised(self) -> int:
        """How many tokens are learned."""
        return sum(self.supervised)


def mark(row: Row, tokenizer: "Tokenizer", chat_format: ChatFormat) -> MarkedRow:
    """Makes all tokens of a row and marks those that are learned.

    A token is learned when it lies in a supervised span whole; one that reaches into the prompt is not.

    Raises:
        RenderingError: the template cannot write the row.
    """
    rendering = chat_format.render_row(row)
    return _marked(row, rendering, tokenizer.encode(rendering.text, add_special_tokens=False), tokenizer, chat_format)


def _marked(
    row: Row, rendering: Rendering, encoding: "Encoding", tokenizer: "Tokenizer", chat_format: ChatFormat
) -> MarkedRow:
    prefix = _text_prefix(rendering.text, tokenizer, chat_format) if not row.is_chat else ()
    offsets = encoding.offsets
    supervised = [*(False for _ in prefix), *_marks(offsets, rendering.supervised)]
    if supervised:
        supervised[0] = False
    return MarkedRow(
        text=rendering.text,
        ids=(*prefix, *encoding.ids),
        supervised=tuple(supervised),
        offsets=(*((0, 0) for _ in prefix), *offsets),
        prefix=len(prefix),
    )


def fit(marked: MarkedRow, line: int, max_tokens: int, overlong: OverlongPolicy) -> EncodedRow | None:
    """Applies the policy for overlong rows.

    Args:
        marked: the whole row.
        line: the row's line, for the error.
        max_tokens: most tokens of a row, >= 1.
        overlong: what happens to a longer row.

    Returns:
        The tokens; None for a row that is dropped, or of whose completion nothing is left after the cut. Under SPLIT
        all of them, the first of each piece not learned: `pieces` divides them.

    Raises:
        OverlongRow: the row is too long and the policy is REFUSE.
    """
    ids, supervised = marked.ids, marked.supervised
    if len(ids) <= max_tokens:
        return EncodedRow(ids=ids, supervised=supervised)
    if overlong is OverlongPolicy.SPLIT:
        learned = tuple(mark and place % max_tokens > 0 for place, mark in enumerate(supervised))
        return EncodedRow(ids=ids, supervised=learned)
    if overlong is OverlongPolicy.REFUSE:
        raise OverlongRow(line, len(ids), max_tokens)
    if overlong is OverlongPolicy.DROP or not any(supervised[:max_tokens]):
        return None
    return EncodedRow(ids=ids[:max_tokens], supervised=supervised[:max_tokens], is_cut=True)


def pieces(encoded: EncodedRow, max_tokens: int) -> list[EncodedRow]:
    """Divides a row into pieces of `max_tokens`, the last one shorter; a row that is short enough is its only piece."""
    return [
        EncodedRow(
            ids=encoded.ids[start : start + max_tokens],
            supervised=encoded.supervised[start : start + max_tokens],
            is_cut=encoded.is_cut,
        )
        for start in range(0, len(encoded.ids), max_tokens)
    ]


def encode(
    row: Row,
    tokenizer: "Tokenizer",
    chat_format: ChatFormat,
    max_tokens: int,
    overlong: OverlongPolicy = OverlongPolicy.DROP,
) -> EncodedRow | None:
    """Makes a row's tokens as it is learned: `mark`, then `fit`, which the linter and its preview call too.

    Args:
        row: the row.
        tokenizer: the model's tokenizer, from `load_tokenizer`.
        chat_format: how the model's texts are written.
        max_tokens: most tokens of a row, >= 1.
        overlong: what happens to a longer row.

    Returns:
        The tokens; None for a row that is dropped, or of whose completion nothing is left after the cut.

    Raises:
        RenderingError: the template cannot write the row.
        OverlongRow: the row is too long and the policy is REFUSE.
    """
    return fit(mark(row, tokenizer, chat_format), row.line, max_tokens, overlong)


def encode_all(
    rows: Iterable[Row],
    tokenizer: "Tokenizer",
    chat_format: ChatFormat,
    max_tokens: int,
    overlong: OverlongPolicy = OverlongPolicy.DROP,
) -> Iterator[EncodedRow | None]:
    """Makes the tokens of many rows, in order and each as `encode` does, with the other cores' help.

    Arguments as for `encode`. What a row makes it raise, or reading the rows does, comes in its place in the order.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="tokens") as pool:

        def finished(batch: _Batch) -> Iterator[EncodedRow | None]:
            for (row, rendering), encoding in zip(batch.rendered, batch.encodings.result(), strict=True):
                marked = _marked(row, rendering, encoding, tokenizer, chat_format)
                yield fit(marked, row.line, max_tokens, overlong)
            if batch.error is not None:
                raise batch.error

        before: _Batch | None = None
        remaining = iter(rows)
        while before is None or before.is_more:
            rendered, error = _rendered(remaining, chat_format)
            texts = [rendering.text for _, rendering in rendered]
            # Its own code holds no lock of the interpreter: meanwhile the next texts are written.
            encodings = pool.submit(tokenizer.encode_batch, texts, add_special_tokens=False)
            batch = _Batch(rendered, encodings, error, is_more=len(rendered) == _ROWS_AT_ONCE and error is None)
            if before is not None:
                yield from finished(before)
            before = batch
        yield from finished(before)


class _Batch(NamedTuple):
    """Rows whose tokens are made together."""

    rendered: list[tuple[Row, Rendering]]
    encodings: "Future[list[Encoding]]"
    error: Exception | None
    """What ended them, after the last one."""
    is_more: bool
    """Whether others may follow."""


def _rendered(rows: Iterator[Row], chat_format: ChatFormat) -> tuple[list[tuple[Row, Rendering]], Exception | None]:
    """Returns the next rows as texts, and what came in the way of more."""
    rendered: list[tuple[Row, Rendering]] = []
    try:
        for row in islice(rows, _ROWS_AT_ONCE):
            rendered.append((row, chat_format.render_row(row)))  # noqa: PERF401 - what came before a fault stays
    except Exception as error:  # noqa: BLE001 - raised again, after what came before it
        return rendered, error
    return rendered, None


def encode_prompt(
    prompt: str | Sequence[Turn], tokenizer: "Tokenizer", chat_format: ChatFormat, character_limit: int | None = None
) -> list[int]:
    """Makes the tokens of a prompt that a model is to continue, exactly as they stand before a completion in training.

    Args:
        prompt: plain text, or a conversation whose next turn is the assistant's.
        tokenizer: the model's tokenizer, from `load_tokenizer`.
        chat_format: how the model's texts are written.
        character_limit: most characters that are made into tokens; None for any number.

    Raises:
        RenderingError: the template cannot write the conversation, or the text is longer than the limit.
    """
    text = prompt if isinstance(prompt, str) else chat_format.render_prompt(prompt)
    if character_limit is not None and len(text) > character_limit:
        message = f"The prompt has {len(text)} characters, but what the model reads has at most {character_limit}."
        raise RenderingError(message, "Shorten it.", RenderingCode.PROMPT_TOO_LONG)
    if isinstance(prompt, str):
        prefix = _text_prefix(prompt, tokenizer, chat_format)
        return [*prefix, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _text_prefix(text: str, tokenizer: "Tokenizer", chat_format: ChatFormat) -> tuple[int, ...]:
    """Returns the beginning-of-text token where the tokenizer would add one and the text does not bring it."""
    bos = chat_format.special_tokens.get("bos_token")
    bos_id = tokenizer.token_to_id(bos) if bos else None
    added = tokenizer.encode("").ids
    if bos is None or bos_id is None or added[:1] != [bos_id] or text.startswith(bos):
        return ()
    return (bos_id,)


def _marks(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Tells for each token, given by its span of characters (in order), whether it lies in one of `spans`."""
    marks = [False] * len(offsets)
    for first, last in spans:
        begin = bisect_left(offsets, (first, first))
        # Some tokenizers trim white space from offsets: a token of nothing else is then empty and lies at its own end.
        while begin < len(offsets) and offsets[begin][1] <= first:
            begin += 1
        end = bisect_right(offsets, last, lo=begin, key=itemgetter(1))
        marks[begin:end] = [True] * (end - begin)
    return marks


__all__ = [
    "EncodedRow",
    "MarkedRow",
    "encode",
    "encode_all",
    "encode_prompt",
    "fit",
    "load_tokenizer",
    "mark",
    "pieces",
]
