"""What every check is: a name, the codes that it gives, a look at each row, and a last word."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.ledger import Ledger
from tuneforge.data.lint.options import LintOptions, TextModel
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.lint.tokens import TokenizedRow
from tuneforge.data.problems import Severity

STRUCTURE: Final = "structure"
SIMILARITY: Final = "similarity"
PRIVACY: Final = "privacy"
TOKENS: Final = "tokens"
GROUPS: Final = (STRUCTURE, SIMILARITY, PRIVACY, TOKENS)
"""What checks are about: the form of rows, likeness, what should not be in them, what a model makes of them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """One kind of finding."""

    severity: Severity
    """How bad it is, where nothing else is said."""
    cure: str
    """What to do about it: one sentence."""
    is_probable: bool = False
    """Whether it is a guess."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What checks are made from."""

    options: LintOptions
    ledger: Ledger
    model: TextModel | None


class Check:
    """One check of one run; subclasses say what they find, how bad it is, and when they are wrong."""

    name: ClassVar[str]
    """By which it is switched on and off."""
    group: ClassVar[str] = STRUCTURE
    codes: ClassVar[Mapping[str, Code]]
    """What it finds."""
    needs_model: ClassVar[bool] = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.ledger = setting.ledger

    def look(self, subject: Subject) -> Iterable[Finding]:  # noqa: ARG002 - for subclasses
        """Looks at a row; the rows of the training part come first."""
        return ()

    def look_at_tokens(self, row: TokenizedRow) -> Iterable[Finding]:  # noqa: ARG002 - for subclasses
        """Looks at what the trainer would make of a row; called for checks that need a model."""
        return ()

    def finish(self) -> Iterable[Finding]:
        """Says what only all rows together tell."""
        return ()

    def found(
        self,
        code: str,
        message: str,
        subject: Subject,
        *,
        field: str = "",
        severity: Severity | None = None,
        cure: str = "",
    ) -> Finding:
        """Makes a finding about a row."""
        kind = self.codes[code]
        return Finding(
            code=code,
            severity=severity or kind.severity,
            check=self.name,
            message=message,
            cure=cure or kind.cure,
            is_probable=kind.is_probable,
            part=subject.part,
            row_id=subject.id,
            file=subject.file,
            line=subject.line,
            field=field,
        )

    def found_later(self, code: str, message: str, number: int, *, related: int | None = None) -> Finding:
        """Makes a finding about a row by its number in the ledger."""
        kind, (file, line) = self.codes[code], self.ledger.place(number)
        return Finding(
            code=code,
            severity=kind.severity,
            check=self.name,
            message=message,
            cure=kind.cure,
            is_probable=kind.is_probable,
            part=self.ledger.part(number),
            row_id=self.ledger.row_id(number),
            related_row_id="" if related is None else self.ledger.row_id(related),
            file=file,
            line=line,
        )

    def found_in_all(self, code: str, message: str, part: Part = Part.TRAIN, *, cure: str = "") -> Finding:
        """Makes a finding about the data set as a whole."""
        kind = self.codes[code]
        return Finding(
            code=code,
            severity=kind.severity,
            check=self.name,
            message=message,
            cure=cure or kind.cure,
            is_probable=kind.is_probable,
            part=part,
        )
