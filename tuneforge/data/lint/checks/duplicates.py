"""Rows that are there more than once."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import Check, Code
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity


class Duplicates(Check):
    """Finds rows with equal content, and rows whose texts are equal but for case, white space or Unicode form.

    DUPLICATE_ROW, a warning: every copy after the first. Exact; a copy may be meant, to give a row more weight.
    TWIN_TEXT, a warning: every such row but the one with the lowest id. Exact as to the texts; case or white space may
    be what is learned, as in code.
    """

    name: ClassVar[str] = "duplicates"
    codes: ClassVar[Mapping[str, Code]] = {
        "DUPLICATE_ROW": Code(severity=Severity.WARNING, cure="Keep one of the copies."),
        "TWIN_TEXT": Code(severity=Severity.WARNING, cure="Keep one of them, in the form that you want to be learned."),
    }

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Finds copies."""
        if subject.is_copy:
            return (self.found("DUPLICATE_ROW", "A row with the same content is there already.", subject),)
        return ()

    def finish(self) -> Iterable[Finding]:
        """Finds twins."""
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
