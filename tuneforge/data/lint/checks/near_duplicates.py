"""Rows that are almost the same: probable, by sketches of their texts."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import SIMILARITY, Check, Code, Setting
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.similarity import Likeness, Sketches, near_texts
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity


class NearDuplicates(Check):
    """Finds rows that share some 80 % or more of their runs of five characters, a system turn left out.

    NEAR_DUPLICATE, a warning: every such row but one of a group. LEAKED_NEAR_DUPLICATE, a warning: a validation row
    that is nearly one of the training part. Both probable: of pairs that share 90 % about 97 in 100 are found, of those
    that share 85 % about 85, and some that share 75 % are told too. Texts of fewer than 40 characters are not compared.
    Rows made from one template differ little by nature.
    """

    name: ClassVar[str] = "near-duplicates"
    group: ClassVar[str] = SIMILARITY
    codes: ClassVar[Mapping[str, Code]] = {
        "NEAR_DUPLICATE": Code(severity=Severity.WARNING, cure="Compare the two and keep one.", is_probable=True),
        "LEAKED_NEAR_DUPLICATE": Code(
            severity=Severity.WARNING, cure="Compare the two and keep them in the same part.", is_probable=True
        ),
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._sketches = {part: Sketches() for part in Part}

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Remembers the sketch of a row."""
        if subject.number >= 0:
            self._sketches[subject.part].add(subject.number, subject.own_words)
        return ()

    def finish(self) -> Iterator[Finding]:
        """Compares sketches."""
        train, validation = self._sketches[Part.TRAIN], self._sketches[Part.VALIDATION]
        for sketches in (train, validation):
            for pair in near_texts(sketches, self.ledger):
                yield from self._told("NEAR_DUPLICATE", "another row", pair)
        if validation.numbers:
            for pair in near_texts(validation, self.ledger, earlier=train):
                yield from self._told("LEAKED_NEAR_DUPLICATE", "a row that is trained on", pair)

    def _told(self, code: str, other: str, pair: Likeness) -> Iterator[Finding]:
        if self.ledger.text_key(pair.later) != self.ledger.text_key(pair.earlier):  # those are twins, and told as such
            message = f"It shares about {round(100 * pair.share)} % of its runs of five characters with {other}."
            yield self.found_later(code, message, pair.later, related=pair.earlier)
