"""A row as tokens, made by the trainer's functions once for all checks that need it, and the counts of all rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuneforge.data.faults import OverlongRow, RenderingError
from tuneforge.data.lint.findings import Part, TokenCounts
from tuneforge.data.lint.options import TextModel
from tuneforge.data.lint.preview import LengthPolicy, RowFate
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.masks import MarkedRow, fit, mark
from tuneforge.data.rows import Row
from tuneforge.specs.spec import OverlongPolicy


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """What became of a row on its way to the trainer's labels."""

    subject: Subject
    marked: MarkedRow | None
    """All its tokens; None when it cannot be written."""
    error: RenderingError | None
    """Why it cannot be written."""
    fate: RowFate
    learned: int
    """Learned tokens that are left."""
    is_all_masked: bool
    """Whether the policy would keep it, or part of it, and no learned token is left."""


def tokenize(subject: Subject, rows: Sequence[Row], model: TextModel, policy: LengthPolicy) -> TokenizedRow:
    """Makes a row's tokens, marks and cuts them as the trainer does.

    Args:
        subject: the row.
        rows: its text; of a pair both, and what decides about the pair is told: the one that cannot be written, then
            the one that is left out, then the longer one.
        model: whose tokenizer and template are used.
        policy: how long a text may be.
    """
    return max((_tokenized(subject, row, model, policy) for row in rows), key=_weight)


def _weight(row: TokenizedRow) -> tuple[bool, bool, int]:
    is_lost = row.fate in (RowFate.DROPPED, RowFate.REFUSED) or row.is_all_masked
    return row.error is not None, is_lost, len(row.marked.ids) if row.marked else 0


def _tokenized(subject: Subject, row: Row, model: TextModel, policy: LengthPolicy) -> TokenizedRow:
    try:
        marked = mark(row, model.tokenizer, model.chat_format)
    except RenderingError as error:
        return TokenizedRow(subject, None, error, RowFate.DROPPED, 0, is_all_masked=False)
    try:
        kept = fit(marked, row.line, policy.max_tokens, policy.overlong)
    except OverlongRow:
        return TokenizedRow(subject, marked, None, RowFate.REFUSED, 0, is_all_masked=False)
    if kept is None:
        is_masked = policy.overlong is OverlongPolicy.TRUNCATE
        return TokenizedRow(subject, marked, None, RowFate.DROPPED, 0, is_all_masked=is_masked)
    fate = RowFate.TRUNCATED if kept.is_cut else RowFate.KEPT
    return TokenizedRow(subject, marked, None, fate, kept.num_supervised, is_all_masked=not kept.num_supervised)


class TokenTally:
    """Counts tokens of the training part, in memory that the number of different lengths bounds."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._fates: Counter[RowFate] = Counter()
        self._supervised = 0

    def add(self, row: TokenizedRow) -> None:
        """Counts a row."""
        if row.marked is not None and row.subject.part is Part.TRAIN:
            self._lengths[len(row.marked.ids)] += 1
            self._fates[row.fate if row.learned or row.fate is RowFate.REFUSED else RowFate.DROPPED] += 1
            self._supervised += row.learned

    def counts(self) -> TokenCounts:
        """Returns the counts so far."""
        return TokenCounts(
            rows=self._lengths.total(),
            tokens=sum(length * count for length, count in self._lengths.items()),
            supervised=self._supervised,
            p50=self._quantile(0.5),
            p90=self._quantile(0.9),
            p99=self._quantile(0.99),
            longest=max(self._lengths, default=0),
            dropped=self._fates[RowFate.DROPPED] + self._fates[RowFate.REFUSED],
            truncated=self._fates[RowFate.TRUNCATED],
        )

    def _quantile(self, share: float) -> int:
        wanted, rows = share * self._lengths.total(), 0
        for length in sorted(self._lengths):
            rows += self._lengths[length]
            if rows >= wanted:
                return length
        return 0
