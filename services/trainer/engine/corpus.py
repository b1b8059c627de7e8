"""The rows of a run as tokens, held in flat arrays that may lie in a file: see `token_cache`."""
# ruff: noqa: N806, N815  (tensors carry their shape in upper case at the end of their names)

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from services.trainer.engine.token_cache import Entry
from services.trainer.engine.training_task import ALL_ROWS, Fault, RowChoice, TrainingFault
from tuneforge.data.examination import side_in
from tuneforge.data.faults import OverlongRow, RenderingError
from tuneforge.data.formats import DataFile
from tuneforge.data.masks import EncodedRow
from tuneforge.data.rows import MalformedRow, Row, learnable_rows
from tuneforge.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One row to learn from."""

    id: str
    """Id of the row, see `tuneforge.data.rows.Row.id`."""
    tokens_T: NDArray[np.int32]
    """Token ids, prompt and completion together."""
    labels_S: NDArray[np.int32]
    """Positions of the tokens that the loss counts, ascending, each >= 1: a token is predicted from those before it."""


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
        )

    def lengths(self) -> list[int]:
        """Returns the tokens of each row."""
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
        """Tokens of each example."""
        return self.examples.lengths()

    def to_entry(self) -> Entry:
        """Returns what the token cache keeps."""
        facts = ("dropped", "cut", "digest", "end_token", "is_chat")
        arrays = ("ids", "tokens", "token_ends", "labels", "label_ends")
        return Entry(
            facts={name: getattr(self, name) for name in facts},
            arrays={name: getattr(self.examples, name) for name in arrays},
        )

    @classmethod
    def from_entry(cls, entry: Entry) -> "Corpus":
        """Reads what `to_entry` gave."""
        return cls(examples=FlatExamples(**entry.arrays), **entry.facts)


Encode = Callable[[Row], EncodedRow | None]
"""Makes a row's tokens; None for a row that the over-length policy drops."""


def read_corpus(
    paths: Sequence[Path], encode: Encode, *, choice: RowChoice = ALL_ROWS, check_stop: Callable[[], None]
) -> Corpus:
    """Reads and encodes the rows of some files, in the order of their names.

    Args:
        paths: Files in any format that `tuneforge.data` reads.
        encode: Makes a row's tokens.
        choice: Which rows of them are taken.
        check_stop: Called after every 256 rows; may raise to end the reading.

    Raises:
        TrainingFault: A row is malformed or of a shape that a language model does not learn (INVALID_DATA), too long
            under REFUSE (INVALID_DATA), or cannot be written by the model's chat template (INVALID_MODEL when there is
            none, else INVALID_DATA).
    """
    examples: list[Example] = []
    dropped = cut = 0
    digest = hashlib.sha256()
    ends: Counter[int] = Counter()
    is_chat = False
    for number, row in enumerate(_rows(paths, choice)):
        if number % 256 == 255:
            check_stop()
        is_chat = row.is_chat
        encoded = _encoded(row, encode)
        if encoded is None:
            dropped += 1
            continue
        example = _example(row.id, encoded)
        if not len(example.labels_S):
            continue
        examples.append(example)
        cut += encoded.is_cut
        if not encoded.is_cut:
            ends[int(example.tokens_T[example.labels_S[-1]])] += 1
        digest.update(f"{example.id} {len(example.tokens_T)} {len(example.labels_S)}\n".encode())
        digest.update(example.tokens_T.tobytes() + example.labels_S.tobytes())
    return Corpus(
        examples=FlatExamples.of(examples),
        dropped=dropped,
        cut=cut,
        digest=digest.hexdigest(),
        end_token=ends.most_common(1)[0][0] if ends else None,
        is_chat=is_chat,
    )


def _rows(paths: Sequence[Path], choice: RowChoice) -> Iterator[Row]:
    """Yields the rows that are taken; every row is read, so that a malformed one is found on either side."""
    folder = choice.folder
    names = (path.name if folder is None else path.relative_to(folder).as_posix() for path in paths)
    try:
        for parsed, row in learnable_rows([DataFile(name, path) for name, path in zip(names, paths, strict=True)]):
            if choice.split is None or side_in(parsed, choice.split) is choice.side:
                yield row
    except MalformedRow as error:
        problem = error.problem
        place = f", line {problem.line}" if problem.line else ""
        raise TrainingFault(Reason.INVALID_DATA, f"{problem.file}{place}: {problem.message}", problem.cure) from error


def _encoded(row: Row, encode: Encode) -> EncodedRow | None:
    try:
        return encode(row)
    except OverlongRow as error:
        raise TrainingFault(
            Reason.INVALID_DATA,
            f"Line {error.line} has {error.tokens} tokens, and data.max_tokens is {error.max_tokens}.",
            "Shorten the row, raise data.max_tokens, or set data.overlong to DROP or TRUNCATE.",
            metadata={"line": str(error.line), "tokens": str(error.tokens), "max_tokens": str(error.max_tokens)},
        ) from error
    except RenderingError as error:
        message = f"Line {row.line}: {error.message}"
        raise TrainingFault(
            Reason.INVALID_DATA, message, error.cure, Fault.USER, metadata={"line": str(row.line)}
        ) from error


def _example(row_id: str, encoded: EncodedRow) -> Example:
    labels_S = np.flatnonzero(np.asarray(encoded.supervised, dtype=bool)).astype(np.int32)
    return Example(id=row_id, tokens_T=np.asarray(encoded.ids, dtype=np.int32), labels_S=labels_S[labels_S > 0])
