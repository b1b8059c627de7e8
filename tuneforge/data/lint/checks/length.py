"""Rows that are too long for a run, and rows of which nothing is learned."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import TOKENS, Check, Code, Setting
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.preview import RowFate
from tuneforge.data.lint.tokens import TokenizedRow
from tuneforge.data.problems import Severity


class Length(Check):
    """Finds rows with more tokens than allowed, and rows without a learned token. Needs a model.

    OVERLONG_ROW: a warning under `drop` and `truncate`, an error under `refuse`, which ends a run. ALL_MASKED, an
    error: after the cut no learned token is left, so the row is left out. NOTHING_TO_LEARN, an error: no row is left.
    All exact: the trainer cuts with the same function.
    """

    name: ClassVar[str] = "length"
    group: ClassVar[str] = TOKENS
    codes: ClassVar[Mapping[str, Code]] = {
        "OVERLONG_ROW": Code(
            severity=Severity.WARNING, cure="Shorten it, raise data.max_tokens, or choose another policy."
        ),
        "ALL_MASKED": Code(severity=Severity.ERROR, cure="Shorten its prompt or raise data.max_tokens."),
        "NOTHING_TO_LEARN": Code(severity=Severity.ERROR, cure="Raise data.max_tokens or give shorter rows."),
    }
    needs_model: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._learned = dict.fromkeys(Part, 0)
        self._left_out = dict.fromkeys(Part, 0)

    def look_at_tokens(self, row: TokenizedRow) -> Iterable[Finding]:
        """Compares a row with the limit."""
        marked, subject = row.marked, row.subject
        if marked is None:
            return ()
        if row.fate in {RowFate.KEPT, RowFate.TRUNCATED} and row.learned:
            self._learned[subject.part] += 1
        else:
            self._left_out[subject.part] += 1
        limit = self.setting.options.length.max_tokens
        size = f"It has {len(marked.ids)} tokens, and at most {limit} are allowed"
        if row.fate is RowFate.REFUSED:
            return (self.found("OVERLONG_ROW", f"{size}: a run fails.", subject, severity=Severity.ERROR),)
        if row.is_all_masked:
            cut = "after the cut" if len(marked.ids) > limit else "at all"
            return (self.found("ALL_MASKED", f"No learned token is left of it {cut}.", subject),)
        if row.fate is RowFate.DROPPED:
            return (self.found("OVERLONG_ROW", f"{size}: it is left out.", subject),)
        if row.fate is RowFate.TRUNCATED:
            message = f"{size}: its end is cut off, {sum(marked.supervised) - row.learned} learned tokens with it."
            return (self.found("OVERLONG_ROW", message, subject),)
        return ()

    def finish(self) -> Iterator[Finding]:
        """Tells when nothing is left of a part."""
        for part in Part:
            if self._left_out[part] and not self._learned[part]:
                message = f"None of {self._left_out[part]} rows has a token that is learned."
                yield self.found_in_all("NOTHING_TO_LEARN", message, part)
