"""Rows that are there more than once."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import Check, Code, Setting
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.ledger import key_of
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity


class Duplicates(Check):
    """Finds rows with equal content, rows whose texts differ in what nobody sees, and ids that stand for two rows.

    DUPLICATE_ROW, a warning: every copy after the first. Exact; a copy may be meant, to give a row more weight.
    TWIN_TEXT, a warning: every row that is another one but for case, white space or Unicode form, save the one with the
    lowest id. Exact as to the texts; case or white space may be what is learned, as in code.
    DUPLICATE_ID, a warning: what a column `id` holds is there with other content too. Exact.
    """

    name: ClassVar[str] = "duplicates"
    codes: ClassVar[Mapping[str, Code]] = {
        "DUPLICATE_ROW": Code(severity=Severity.WARNING, cure="Keep one of the copies."),
        "TWIN_TEXT": Code(severity=Severity.WARNING, cure="Keep one of them, in the form that you want to be learned."),
        "DUPLICATE_ID": Code(severity=Severity.WARNING, cure="Give every row an id of its own."),
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._ids: dict[int, bytes] = {}

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Finds copies."""
        if subject.number >= 0 and subject.parsed.key:
            self._ids[subject.number] = key_of(subject.parsed.key)
        if subject.is_copy:
            return (self.found("DUPLICATE_ROW", "A row with the same content is there already.", subject),)
        return ()

    def finish(self) -> Iterable[Finding]:
        """Finds twins and ids that stand for several rows."""
        ledger = self.ledger
        for part in Part:
            lowest: dict[bytes, int] = {}
            twins = []
            for number in ledger.ranked(part):
                first = lowest.setdefault(ledger.text_key(number), number)
                if ledger[first] != ledger[number]:
                    twins.append((number, first))
            message = (
                "Its texts are those of another row, but for case, white space, Unicode form or how they are divided."
            )
            yield from (self.found_later("TWIN_TEXT", message, number, related=first) for number, first in twins)
            owners: dict[bytes, int] = {}
            message = "Another row with the same id has other content."
            for number in ledger.ranked(part):
                if (identity := self._ids.get(number)) is not None:
                    first = owners.setdefault(identity, number)
                    if first != number:
                        yield self.found_later("DUPLICATE_ID", message, number, related=first)
