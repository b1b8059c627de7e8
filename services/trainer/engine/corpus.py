"""The rows of a run as tokens, held in flat arrays that may lie in a file: see `token_cache`."""
# ruff: noqa: N806, N815  (tensors carry their shape in upper case at the end of their names)

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from services.trainer.engine.token_cache import Entry
from services.trainer.engine.training_task import ALL_ROWS, Fault, RowChoice, TrainingFault
from tuneforge.data.examination import side_in
from tuneforge.data.faults import OverlongRow, RenderingCode, RenderingError
from tuneforge.data.formats import DataFile
from tuneforge.data.masks import EncodedRow, pieces
from tuneforge.data.rows import MalformedRow, Row, learnable_rows
from tuneforge.data.shapes import TRAINABLE, RowShape
from tuneforge.data.split import is_in_share
from tuneforge.errors import Reason

_DROPPED = frozenset({RenderingCode.TURN_DROPPED, RenderingCode.TOOLS_DROPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row to learn from."""

    id: str
    """Id of the row, see `tuneforge.data.rows.Row.id`."""
    tokens_T: NDArray[np.int32]
    """Token ids, prompt and completion together."""
    labels_S: NDArray[np.int32]
    """Positions of the tokens that the loss counts, ascending, each >= 1: a token is predicted from those before it."""
    boundary: int = 0
    """Of a pair: where in `tokens_T` the rejected text begins, after the chosen one. 0 for a single text."""

    @property
    def texts(self) -> tuple["Example", ...]:
        """The text; of a pair the chosen and the rejected one, each by itself."""
        if not self.boundary:
            return (self,)
        middle = int(np.searchsorted(self.labels_S, self.boundary))
        chosen = Example(id=self.id, tokens_T=self.tokens_T[: self.boundary], labels_S=self.labels_S[:middle])
        rejected = Example(
            id=self.id, tokens_T=self.tokens_T[self.boundary :], labels_S=self.labels_S[middle:] - self.boundary
        )
        return chosen, rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatExamples(Sequence[Example]):
    """Examples end to end in a few arrays; one is a view into them, made when it is asked for."""

    ids: NDArray[np.bytes_]
    """Ids of the rows."""
    tokens: NDArray[np.int32]
    """Token ids of all rows."""
    token_ends: NDArray[np.int64]
    """Where the tokens of each row end."""
    labels: NDArray[np.int32]
    """Learned positions of all rows, each counted from the beginning of its row."""
    label_ends: NDArray[np.int64]
    """Where the positions of each row end."""
    boundaries: NDArray[np.int32]
    """Where the rejected text of each pair begins, counted from the beginning of its row; 0 for a single text."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "FlatExamples":
        """Lays examples end to end."""
        empty = np.zeros(0, dtype=np.int32)
        return cls(
            ids=np.array([example.id.encode() for example in examples], dtype=np.bytes_),
            tokens=np.concatenate([empty, *(example.tokens_T for example in examples)]),
            token_ends=np.cumsum([len(example.tokens_T) for example in examples], dtype=np.int64),
            labels=np.concatenate([empty, *(example.labels_S for example in examples)]),
            label_ends=np.cumsum([len(example.labels_S) for example in examples], dtype=np.int64),
            boundaries=np.array([example.boundary for example in examples], dtype=np.int32),
        )

    def lengths(self) -> list[int]:
        """Returns the tokens of each row, of a pair those of both texts."""
        lengths: list[int] = np.diff(self.token_ends, prepend=0).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self.token_ends)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return Example(
            id=self.ids[row].decode(),
            tokens_T=self.tokens[self.token_ends[row - 1] if row else 0 : self.token_ends[row]],
            labels_S=self.labels[self.label_ends[row - 1] if row else 0 : self.label_ends[row]],
            boundary=int(self.boundaries[row]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Encoded rows in file order."""

    examples: FlatExamples
    """The rows that are left after the over-length policy and that have a token to learn."""
    dropped: int
    """Rows that the over-length policy left out."""
    cut: int
    """Rows that lost their end to it."""
    digest: str
    """SHA-256 over ids, tokens and labels of all examples, 64 hexadecimal digits."""
    end_token: int | None
    """The token that most completions end with; None without examples."""
    is_chat: bool
    """Whether the rows are conversations."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example, of a pair those of both texts."""
        return self.examples.lengths()

    def to_entry(self) -> Entry:
        """Returns what the token cache keeps."""
        facts = ("dropped", "cut", "digest", "end_token", "is_chat")
        arrays = ("ids", "tokens", "token_ends", "labels", "label_ends", "boundaries")
        return Entry(
            facts={name: getattr(self, name) for name in facts},
            arrays={name: getattr(self.examples, name) for name in arrays},
        )

    @classmethod
    def from_entry(cls, entry: Entry) -> "Corpus":
        """Reads what `to_entry` gave."""
        return cls(examples=FlatExamples(**entry.arrays), **entry.facts)


Encode = Callable[[Iterator[Row]], Iterator[EncodedRow | None]]
"""Makes the tokens of texts, in order; None for one that the over-length policy drops. What it raises is of the text
after those that it has made tokens of."""


def read_corpus(
    paths: Sequence[Path],
    encode: Encode,
    *,
    shapes: Collection[RowShape] = TRAINABLE,
    piece_tokens: int | None = None,
    choice: RowChoice = ALL_ROWS,
    check_stop: Callable[[], None],
) -> Corpus:
    """Reads and encodes the rows of some files, in the order of their names.

    Args:
        paths: Files in any format that `tuneforge.data` reads.
        encode: Makes the tokens of texts.
        shapes: Shapes of the rows that the task learns from.
        piece_tokens: Longer texts become several examples of so many tokens; None: they stay whole.
        choice: Which rows of them are taken.
        check_stop: Called after every 256 rows; may raise to end the reading.

    Raises:
        TrainingFault: A row is malformed or of a shape that the task does not learn (INVALID_DATA), too long under
            REFUSE (INVALID_DATA), or cannot be written by the model's chat template (INVALID_MODEL when it leaves out
            tools or their calls, else INVALID_DATA).
    """
    examples: list[Example] = []
    dropped = cut = 0
    digest = hashlib.sha256()
    ends: Counter[int] = Counter()
    is_chat = False
    for number, (texts, found) in enumerate(_encoded(_rows(paths, shapes, choice), encode)):
        if number % 256 == 255:
            check_stop()
        is_chat = texts[0].is_chat
        encoded = [each for each in found if each is not None]
        if len(encoded) < len(texts):
            dropped += 1
            continue
        made = list(_examples(texts[0].id, encoded, piece_tokens))
        for example in made:
            digest.update(f"{example.id} {len(example.tokens_T)} {len(example.labels_S)}\n".encode())
            digest.update(example.tokens_T.tobytes() + example.labels_S.tobytes())
            digest.update(f"{example.boundary}\n".encode() if example.boundary else b"")
        examples += made
        is_cut = any(each.is_cut for each in encoded)
        cut += bool(made) and is_cut
        if made and not is_cut:
            last = made[-1].texts[0]
            ends[int(last.tokens_T[last.labels_S[-1]])] += 1
    return Corpus(
        examples=FlatExamples.of(examples),
        dropped=dropped,
        cut=cut,
        digest=digest.hexdigest(),
        end_token=ends.most_common(1)[0][0] if ends else None,
        is_chat=is_chat,
    )


def _rows(paths: Sequence[Path], shapes: Collection[RowShape], choice: RowChoice) -> Iterator[tuple[Row, ...]]:
    """Yields the texts of the rows that are taken; all are read, so that a malformed one is found on either side."""
    folder = choice.folder
    names = (path.name if folder is None else path.relative_to(folder).as_posix() for path in paths)
    try:
        files = [DataFile(name, path) for name, path in zip(names, paths, strict=True)]
        for parsed, texts in learnable_rows(files, shapes):
            is_side = choice.split is None or side_in(parsed, choice.split) is choice.side
            if is_side and (choice.share >= 1 or is_in_share(parsed.row_id, choice.share, choice.seed)):
                yield texts
    except MalformedRow as error:
        problem = error.problem
        place = f", line {problem.line}" if problem.line else ""
        raise TrainingFault(Reason.INVALID_DATA, f"{problem.file}{place}: {problem.message}", problem.cure) from error


def _encoded(
    rows: Iterator[tuple[Row, ...]], encode: Encode
) -> Iterator[tuple[tuple[Row, ...], list[EncodedRow | None]]]:
    """Yields the texts of each row with their tokens."""
    taken: deque[tuple[Row, ...]] = deque()

    def texts() -> Iterator[Row]:
        for row in rows:
            taken.append(row)
            yield from row

    encoded = encode(texts())
    found: list[EncodedRow | None] = []
    try:
        for each in encoded:
            found.append(each)
            if len(found) == len(taken[0]):
                yield taken.popleft(), found
                found = []
    except OverlongRow as error:
        raise TrainingFault(
            Reason.INVALID_DATA,
            f"Line {error.line} has {error.tokens} tokens, and data.max_tokens is {error.max_tokens}.",
            "Shorten the row, raise data.max_tokens, or set data.overlong to DROP or TRUNCATE.",
            metadata={"line": str(error.line), "tokens": str(error.tokens), "max_tokens": str(error.max_tokens)},
        ) from error
    except RenderingError as error:
        row = taken[0][len(found)]
        message = f"Line {row.line}: {error.message}"
        uses_tools = bool(row.tools) or any(turn.tool_calls for turn in row.turns)
        reason = Reason.INVALID_MODEL if uses_tools and error.code in _DROPPED else Reason.INVALID_DATA
        raise TrainingFault(reason, message, error.cure, Fault.USER, metadata={"line": str(row.line)}) from error


def _examples(row_id: str, encoded: Sequence[EncodedRow], piece_tokens: int | None) -> Iterator[Example]:
    """Yields the examples of a row that have something to learn: of a text one, or one a piece; of a pair one."""
    if len(encoded) == 1:
        parts = pieces(encoded[0], piece_tokens) if piece_tokens else encoded
        for number, part in enumerate(parts):
            example = _example(f"{row_id}.{number}" if len(parts) > 1 else row_id, part)
            if len(example.labels_S):
                yield example
        return
    chosen, rejected = (_example(row_id, each) for each in encoded)
    if len(chosen.labels_S) and len(rejected.labels_S):
        boundary = len(chosen.tokens_T)
        yield Example(
            id=row_id,
            tokens_T=np.concatenate([chosen.tokens_T, rejected.tokens_T]),
            labels_S=np.concatenate([chosen.labels_S, rejected.labels_S + np.int32(boundary)]),
            boundary=boundary,
        )


def _example(row_id: str, encoded: EncodedRow) -> Example:
    labels_S = np.flatnonzero(np.asarray(encoded.supervised, dtype=bool)).astype(np.int32)
    return Example(id=row_id, tokens_T=np.asarray(encoded.ids, dtype=np.int32), labels_S=labels_S[labels_S > 0])
