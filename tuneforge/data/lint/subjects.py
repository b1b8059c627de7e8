"""A row as the checks see it: its texts with their places, its prompt and its target, made once for all of them."""

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

from tuneforge.data.formats import ParsedRow
from tuneforge.data.identity import canonical_json
from tuneforge.data.lint.findings import Part
from tuneforge.data.shapes import RowShape

_APART: Final = "\x1f"
"""Stands between the parts of a prompt or a row: a character that texts have no use for."""
_LABELLED: Final = frozenset({RowShape.TEXT_LABEL, RowShape.IMAGE_LABEL})

Texts = list[tuple[str, str]]
"""Path inside the row, and the text that stands there."""


class Subject:
    """One readable row."""

    __slots__ = ("_folded", "file", "has_label", "id", "is_copy", "line", "number", "parsed", "part", "target", "texts")

    def __init__(self, parsed: ParsedRow, part: Part) -> None:
        if parsed.content is None or parsed.shape is None:
            raise ValueError("the row cannot be read")
        self.parsed = parsed
        self.part = part
        self.id, self.file, self.line = parsed.row_id, parsed.file, parsed.line
        self.number = -1
        """Number in the ledger; -1 for a row that is not in it."""
        self.is_copy = False
        """Whether a row with the same content was there before, in the same part."""
        self.has_label = parsed.shape in _LABELLED
        """Whether the target is a label."""
        self.texts: Texts = _TEXTS[parsed.shape](parsed.content)
        """Every text of the row; the target, where there is one, stands last."""
        self.target: str = self.texts[-1][1] if parsed.shape in _WITH_TARGET else ""
        """What is learned last: the last answer, the completion, the label. Empty for a row without a target."""
        self._folded: str | None = None

    @property
    def prompt(self) -> str:
        """All that stands before the target; empty for a row without a target."""
        return _APART.join([part for pair in self.texts[:-1] for part in pair]) if self.target else ""

    @property
    def has_prompt(self) -> bool:
        """Whether anything but white space stands before the target."""
        return any(text and not text.isspace() for _, text in self.texts[:-1])

    @property
    def folded(self) -> str:
        """The texts of the row in one, without what a reader would not see: case, white space, forms of characters."""
        if self._folded is None:
            self._folded = _fold([text for _, text in self.texts])
        return self._folded

    @property
    def own_words(self) -> str:
        """The same without a system turn, which many rows have in common."""
        turns = self.turns
        return _fold([text for _, text in self.texts[1:]]) if turns and turns[0]["role"] == "system" else self.folded

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns of a conversation; empty for other rows."""
        content = self.parsed.content
        turns: list[dict[str, Any]] = content.get("messages", []) if content else []
        return turns


def _fold(texts: list[str]) -> str:
    whole = _APART.join(texts)  # white space to `split`
    if not whole.isascii():
        whole = unicodedata.normalize("NFC", whole)
    return " ".join(whole.lower().split())


def _messages(content: Mapping[str, Any]) -> Texts:
    texts = _turns(content["messages"], "messages")
    if "tools" in content:
        texts.insert(0, ("tools", canonical_json(content["tools"])))
    return texts


def _turns(turns: list[dict[str, Any]], field: str) -> Texts:
    texts: Texts = []
    for place, turn in enumerate(turns):
        path = f"{field}[{place}]"
        if "tool_calls" in turn:
            text = f"{turn['content']}{_APART}" if turn["content"] else ""
            texts.append(
                (f"{path}.tool_calls", text + canonical_json([each["function"] for each in turn["tool_calls"]]))
            )
        else:
            texts.append((f"{path}.content", turn["content"]))
    return texts


def _instruction(content: Mapping[str, Any]) -> Texts:
    return [(name, content[name]) for name in ("system", "instruction", "input", "output") if name in content]


def _named(*names: str) -> Callable[[Mapping[str, Any]], Texts]:
    return lambda content: [(name, str(content[name])) for name in names]


def _preference(content: Mapping[str, Any]) -> Texts:
    if isinstance(content["prompt"], str):
        return [(name, content[name]) for name in ("prompt", "chosen", "rejected")]
    return [pair for name in ("prompt", "chosen", "rejected") for pair in _turns(content[name], name)]


def _image(content: Mapping[str, Any]) -> Texts:
    image = content["image"]
    return [("image", str(image["sha256"] if isinstance(image, Mapping) else image)), ("label", str(content["label"]))]


def _session(content: Mapping[str, Any]) -> Texts:
    query = content["search_query"]
    rest = {name: value for name, value in content.items() if name not in {"search_query", "session_id"}}
    asked = query if isinstance(query, str) else canonical_json(query)
    return [("search_query", asked), ("search_results", canonical_json(rest))]


_TEXTS: Final[dict[RowShape, Callable[[Mapping[str, Any]], Texts]]] = {
    RowShape.MESSAGES: _messages,
    RowShape.SHAREGPT: _messages,
    RowShape.INSTRUCTION: _instruction,
    RowShape.PROMPT_COMPLETION: _named("prompt", "completion"),
    RowShape.TEXT: _named("text"),
    RowShape.PREFERENCE: _preference,
    RowShape.TEXT_LABEL: _named("text", "label"),
    RowShape.IMAGE_LABEL: _image,
    RowShape.CLICK_SESSION: _session,
}
_WITH_TARGET: Final = frozenset(RowShape) - {RowShape.TEXT, RowShape.PREFERENCE, RowShape.CLICK_SESSION}
