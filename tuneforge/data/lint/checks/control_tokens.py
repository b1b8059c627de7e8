"""Texts that a model reads as its own control tokens."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

from tuneforge.data.lint.check import Check, Code, Setting
from tuneforge.data.lint.findings import Finding
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity
from tuneforge.data.shapes import CONVERSATIONS

_KNOWN: Final = re.compile(
    r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
)


class ControlTokens(Check):
    """Finds text that ends turns or begins roles when a tokenizer meets it.

    CONTROL_TOKEN_TEXT, a warning. With a model, exact, and for plain rows only, which would teach the token itself: in
    conversations it is the template's CONTROL_TOKEN, since the trainer refuses them. Without a model, probable: the
    text is a control token of some family of models; `<s>` is also struck-out text in HTML.
    """

    name: ClassVar[str] = "control-tokens"
    codes: ClassVar[Mapping[str, Code]] = {
        "CONTROL_TOKEN_TEXT": Code(
            severity=Severity.WARNING, cure="Take it out, or put a space into it.", is_probable=True
        )
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        model = setting.model
        self._is_exact = model is not None
        tokens = sorted(model.chat_format.control_tokens, key=len, reverse=True) if model else []
        self._pattern = re.compile("|".join(map(re.escape, tokens)) or "(?!)") if model else _KNOWN
        self._first = {token[0] for token in tokens} if model else {"<", "["}

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Looks at every text."""
        found: list[Finding] = []
        if self._is_exact and subject.parsed.shape in CONVERSATIONS:
            return found
        for field, text in subject.texts:
            if any(map(text.__contains__, self._first)) and (match := self._pattern.search(text)):
                message = f"It holds the text `{match.group()}`, which models read as a control token."
                finding = self.found("CONTROL_TOKEN_TEXT", message, subject, field=field)
                found.append(dataclasses.replace(finding, is_probable=not self._is_exact))
        return found
