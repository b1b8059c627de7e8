"""Rows that a model's chat template cannot write."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from tuneforge.data.faults import RenderingCode
from tuneforge.data.lint.check import TOKENS, Check, Code, Setting
from tuneforge.data.lint.findings import Finding
from tuneforge.data.lint.tokens import TokenizedRow
from tuneforge.data.problems import Severity


class Template(Check):
    """Finds conversations that the template refuses, fails at, or writes otherwise than they are. Needs a model.

    All errors, all exact: the trainer uses the same template and ends with the same fault. NO_CHAT_TEMPLATE,
    TEMPLATE_INVALID and TOKENIZER_UNUSABLE, once, when no such row can be written; TEMPLATE_REFUSES, TEMPLATE_FAILS,
    TURN_DROPPED, TOOLS_DROPPED, TURN_REWRITTEN, NO_END_TOKEN and CONTROL_TOKEN for a row.
    """

    name: ClassVar[str] = "template"
    group: ClassVar[str] = TOKENS
    codes: ClassVar[Mapping[str, Code]] = {
        code.value: Code(severity=Severity.ERROR, cure="Change the row or the template.")
        for code in RenderingCode
        if code is not RenderingCode.PROMPT_TOO_LONG
    }
    needs_model: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._said: set[str] = set()

    def look_at_tokens(self, row: TokenizedRow) -> Iterable[Finding]:
        """Tells why a row could not be written."""
        error = row.error
        if error is None:
            return ()
        if not error.code.is_of_model:
            return (self.found(error.code, error.message, row.subject, cure=error.cure),)
        if error.code in self._said:
            return ()
        self._said.add(error.code)
        return (self.found_in_all(error.code, error.message, cure=error.cure),)
