"""Rows of the validation part that are trained on: what is measured with them looks better than it is."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import Check, Code
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.problems import Severity


class Leakage(Check):
    """Finds validation rows that are, wholly or in their prompt, in the training part.

    LEAKED_ROW, an error: the same content. Exact, never wrong.
    LEAKED_TEXT, an error: the same texts but for case, white space or Unicode form. Exact as to the texts.
    LEAKED_PROMPT, a warning: the same prompt with another target. Exact; a data set with several answers to a question
    has such rows by nature, and its split should keep them together.
    """

    name: ClassVar[str] = "leakage"
    codes: ClassVar[Mapping[str, Code]] = {
        "LEAKED_ROW": Code(severity=Severity.ERROR, cure="Take it out of one of the two."),
        "LEAKED_TEXT": Code(severity=Severity.ERROR, cure="Take it out of one of the two."),
        "LEAKED_PROMPT": Code(severity=Severity.WARNING, cure="Keep all rows of a prompt in the same part."),
    }

    def finish(self) -> Iterator[Finding]:
        """Compares the two parts."""
        ledger = self.ledger
        validation = ledger.ranked(Part.VALIDATION)
        texts: dict[bytes, int] = {}
        prompts: dict[bytes, int] = {}
        for number in ledger.ranked(Part.TRAIN) if validation else ():
            texts.setdefault(ledger.text_key(number), number)
            if (key := ledger.prompt_key(number)) is not None:
                prompts.setdefault(key, number)
        for number in validation:
            if ledger.is_trained_on(ledger.row_id(number)):
                yield self.found_later("LEAKED_ROW", "A row with the same content is trained on.", number)
                continue
            related = texts.get(ledger.text_key(number))
            if related is not None:
                message = "Its texts are trained on, but for case, white space, Unicode form or how they are divided."
                yield self.found_later("LEAKED_TEXT", message, number, related=related)
                continue
            related = prompts.get(ledger.prompt_key(number) or b"")
            if related is not None:
                message = "Its prompt is trained on, with another target."
                yield self.found_later("LEAKED_PROMPT", message, number, related=related)
