"""Characters that came to harm on their way, and ones that nobody sees."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from tuneforge.data.lint.characters import is_plain, oddities
from tuneforge.data.lint.check import Check, Code
from tuneforge.data.lint.findings import Finding
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity


class Encoding(Check):
    """Finds broken and invisible characters, once a kind and text.

    REPLACEMENT_CHARACTER, a warning: U+FFFD, where a character was lost. MOJIBAKE, a warning, probable: UTF-8 that was
    read in a one-byte encoding; text about such faults has it on purpose. CONTROL_CHARACTER, a warning.
    INVISIBLE_CHARACTER, a warning: zero-width characters and soft hyphens. DIRECTION_OVERRIDE, a warning: characters
    that turn the direction of writing, which real Arabic or Hebrew rarely needs. STACKED_MARKS, a warning: five or more
    combining marks at once. NOT_NORMALIZED, for information: characters in a decomposed form, which a tokenizer cuts
    differently; rows that are equal but for that are TWIN_TEXT.
    """

    name: ClassVar[str] = "encoding"
    codes: ClassVar[Mapping[str, Code]] = {
        "REPLACEMENT_CHARACTER": Code(severity=Severity.WARNING, cure="Make the row again from its source."),
        "MOJIBAKE": Code(
            severity=Severity.WARNING, cure="Read the source as UTF-8, or undo the wrong decoding.", is_probable=True
        ),
        "CONTROL_CHARACTER": Code(severity=Severity.WARNING, cure="Take it out."),
        "INVISIBLE_CHARACTER": Code(severity=Severity.WARNING, cure="Take it out."),
        "DIRECTION_OVERRIDE": Code(severity=Severity.WARNING, cure="Take it out, unless the text is about it."),
        "STACKED_MARKS": Code(severity=Severity.WARNING, cure="Take the marks out."),
        "NOT_NORMALIZED": Code(severity=Severity.INFO, cure="Write all texts in the form NFC."),
    }

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Looks at every text."""
        return [
            self.found(code, f"It has {what}, first at character {place}.", subject, field=field)
            for field, text in subject.texts
            if not is_plain(text)
            for code, what, place in oddities(text)
        ]
