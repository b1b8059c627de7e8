"""From conversations to the text that a model reads, and which part of that text it is to learn.

`ChatFormat` is how one model's texts are written: its chat template and its special tokens. Training and inference use
the same one, so a model is asked in the form that it was taught in. Tokens are made in `masks.py`.
"""

import dataclasses
import datetime as dt
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tuneforge.data._outline import Outline, stand_in
from tuneforge.data._sentinels import SENTINEL, messages_of, sentinel, with_sentinels
from tuneforge.data.faults import MissingExtra, RenderingCode, RenderingError
from tuneforge.data.rows import Row, Turn
from tuneforge.data.vocabulary import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAINING_TIME: Final = dt.datetime(2024, 7, 26, tzinfo=dt.UTC)
"""What `strftime_now` tells in training: fixed, so that a row gives the same tokens on every day of a run and of its
resume. The date is the fall-back that Llama 3's own template names."""

_SENTINEL_PATTERN: Final = re.compile(f"{SENTINEL}[0-9]+{SENTINEL}")

_MOST_OUTLINES: Final = 256
"""Orders of speakers that are remembered for a model."""

Tools = Sequence[Mapping[str, Any]]
"""What a conversation may call, as templates take it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """A row as text."""

    text: str
    supervised: tuple[tuple[int, int], ...]
    """What is learned, as half-open spans of characters in order, none empty: what the assistant writes after the
    generation prompt, with the token that ends its turn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How a model's texts are written."""

    template: str | None
    """Source of its chat template; None for a model without one, which then takes plain text only."""
    special_tokens: Mapping[str, str]
    """Its named special tokens: `bos_token`, `eos_token` and so on."""
    control_tokens: frozenset[str]
    """Texts that the tokenizer turns into one control token, wherever they stand."""
    now: dt.datetime = TRAINING_TIME
    """What the template's `strftime_now` tells."""

    @classmethod
    def load(
        cls, folder: Path, tokenizer: "Tokenizer | None" = None, *, now: dt.datetime = TRAINING_TIME
    ) -> "ChatFormat":
        """Reads the format of the model in `folder` from its tokenizer's files.

        Args:
            folder: the model's folder.
            tokenizer: its tokenizer when it is loaded already; None loads it, which takes a tenth of a second.
            now: what `strftime_now` tells.

        Raises:
            RenderingError: a file of the tokenizer is missing or malformed.
        """
        added = (tokenizer or load_tokenizer(folder)).get_added_tokens_decoder()
        config = _read_json(folder / "tokenizer_config.json")
        special = _special_tokens(config, {number: token.content for number, token in added.items()}, folder)
        control = {token.content for token in added.values() if token.special}
        return cls(
            template=_template_source(config, folder),
            special_tokens=special,
            control_tokens=frozenset(control | set(special.values())),
            now=now,
        )

    @property
    def sha256(self) -> str:
        """SHA-256 of the template's source, 64 hexadecimal digits; that of nothing for a model without a template."""
        return hashlib.sha256((self.template or "").encode()).hexdigest()

    @property
    def eos_token(self) -> str:
        """The token that ends a text.

        Raises:
            RenderingError: the model names none.
        """
        eos = self.special_tokens.get("eos_token")
        if not eos:
            raise RenderingError("The tokenizer names no eos_token.", "Add `eos_token` to tokenizer_config.json.")
        return eos

    def render_prompt(self, turns: Sequence[Turn]) -> str:
        """Writes a conversation up to where the assistant's answer begins.

        Raises:
            RenderingError: there is no template, it refuses the conversation, or a turn holds a control token.
        """
        self._check_turns(turns)
        return self._render(messages_of(turns), (), add_generation_prompt=True)

    def render_row(self, row: Row) -> Rendering:
        """Writes a row and finds what is learned from it.

        Plain rows are prompt, completion and the token that ends a text. Conversations go through the template, and
        every assistant's turn is learned that is not among those that are only read.

        Raises:
            RenderingError: there is no template, it refuses, drops or rewrites a turn or the tools, it ends an
                assistant's turn without a control token, or a turn holds a control token.
        """
        if not row.is_chat:
            start = len(row.prompt)
            text = row.prompt + row.completion + self.eos_token
            return Rendering(text=text, supervised=((start, len(text)),))
        self._check_turns(row.turns, row.tools)
        return self._render_conversation(row)

    def _render_conversation(self, row: Row) -> Rendering:
        turns = row.turns
        text = self._render(messages_of(turns), row.tools, add_generation_prompt=False)
        answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        outline = None if row.tools else self._outline(turns)
        spans = outline.spans([turn.content for turn in turns], text) if outline else None
        if spans is None:
            spans = self._spans(turns, row.tools, text)
        learned = (span for index, span in zip(answers, spans, strict=True) if index >= row.context_turns)
        return Rendering(text=text, supervised=tuple(learned))

    def _outline(self, turns: Sequence[Turn]) -> Outline | None:
        """Returns what the template writes around turns that only speak; None where they do more, or it does."""
        if any(turn.tool_calls or turn.tool_call_id or turn.name for turn in turns):
            return None
        roles = tuple(turn.role for turn in turns)
        if roles not in self._outlines and len(self._outlines) < _MOST_OUTLINES:
            same = [Turn(role=role, content=stand_in(index)) for index, role in enumerate(roles)]
            answers = [index for index, role in enumerate(roles) if role == "assistant"]
            try:
                text = self._render(messages_of(same), (), add_generation_prompt=False)
                self._outlines[roles] = Outline.of(text, self._spans(same, (), text), answers)
            except RenderingError:  # the row itself tells what is wrong
                self._outlines[roles] = None
        return self._outlines.get(roles)

    @functools.cached_property
    def _outlines(self) -> dict[tuple[str, ...], Outline | None]:
        return {}

    def _spans(self, turns: Sequence[Turn], tools: Tools, text: str) -> list[tuple[int, int]]:
        """Finds what is learned of a text, one span for each answer."""
        places = self._content_places(turns, tools, text)
        answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        end_token = self._first_control_token(text[places[-1][1] :])
        if end_token is None:
            raise RenderingError(
                "The chat template ends an assistant's turn without a control token, so it could not learn to stop.",
                "Add the eos_token after the assistant's content in the template.",
                RenderingCode.NO_END_TOKEN,
            )
        spans: list[tuple[int, int]] = []
        for number, (index, (start, end)) in enumerate(zip(answers, places, strict=True)):
            following = places[number + 1][0] if number + 1 < len(places) else len(text)
            stop = text.find(end_token, end, following)
            is_ended = stop >= 0 and self._first_control_token(text[end:following]) == end_token
            before = spans[-1][1] if spans else 0
            begin = self._answer_start(turns[:index], tools, text, (before, start))
            spans.append((begin, stop + len(end_token) if is_ended else end))
        return spans

    def _content_places(self, turns: Sequence[Turn], tools: Tools, text: str) -> list[tuple[int, int]]:
        """Finds where each assistant's content stands in the rendered text, up to the name of the last tool it calls.

        The conversation is rendered once more with a sentinel for every assistant's content and call: what stands
        between the sentinels must then stand in `text` too, around the contents themselves.
        """
        self._check_nothing_dropped(turns, tools, text)
        marked, marks = with_sentinels(turns, only_answers=True)
        first, *following = _SENTINEL_PATTERN.split(self._render(marked, tools, add_generation_prompt=False))
        places: dict[int, tuple[int, int]] = {}
        position = len(first) if text.startswith(first) else -1
        for (index, content), after in zip(marks, following, strict=True):
            # Many templates strip the content, which is the same text to a reader.
            forms = (content, content.lstrip(), content.rstrip(), content.strip())
            written = next((form for form in forms if text.startswith(form + after, position)), None)
            if written is None or position < 0:
                raise RenderingError(
                    f"The chat template rewrites turn {index + 1} (assistant), so the row would not be learned.",
                    "Change the row to what the template writes, or use another template.",
                    RenderingCode.TURN_REWRITTEN,
                )
            start = places[index][0] if index in places else position
            places[index] = (start, position + len(written))
            position += len(written) + len(after)
        return [places[index] for index in sorted(places)]

    def _check_nothing_dropped(self, turns: Sequence[Turn], tools: Tools, text: str) -> None:
        messages, marks = with_sentinels(turns, only_answers=False)
        marked = self._render(messages, tools, add_generation_prompt=False)
        position = 0
        for number, (index, _) in enumerate(marks):
            mark = sentinel(number)
            if marked.count(mark) != 1 or marked.find(mark) < position:
                fate = "drops" if mark not in marked else "repeats or moves"
                part = "turn" if messages[index]["content"] == mark else "a tool call of turn"
                raise RenderingError(
                    f"The chat template {fate} {part} {index + 1} ({turns[index].role}).",
                    "Leave such turns out of the row, or use a template that writes every turn.",
                    RenderingCode.TURN_DROPPED,
                )
            position = marked.find(mark)
        if tools and self._render(messages_of(turns), (), add_generation_prompt=False) == text:
            raise RenderingError(
                "The chat template does not write the row's tools, so the model would not know of them.",
                "Leave them out of the row, or use a template that writes tools.",
                RenderingCode.TOOLS_DROPPED,
            )

    def _answer_start(self, earlier: Sequence[Turn], tools: Tools, text: str, limits: tuple[int, int]) -> int:
        """Returns where the model begins to write: after the generation prompt, else at the content.

        Args:
            earlier: the turns before the answer.
            tools: what they may call.
            text: the whole conversation.
            limits: where the answer before ends, and where this one's content begins.
        """
        prompt = self._render(messages_of(earlier), tools, add_generation_prompt=True)
        return len(prompt) if limits[0] <= len(prompt) <= limits[1] and text.startswith(prompt) else limits[1]

    def _first_control_token(self, text: str) -> str | None:
        places = [(text.find(token), -len(token), token) for token in self.control_tokens if token in text]
        return min(places)[2] if places else None

    def _check_turns(self, turns: Sequence[Turn], tools: Tools = ()) -> None:
        texts = [(f"Turn {index + 1} ({turn.role})", turn.content) for index, turn in enumerate(turns)]
        for index, turn in enumerate(turns):
            calls = [part for call in turn.tool_calls for part in (call.name, call.arguments)]
            texts += [(f"A tool call of turn {index + 1}", part) for part in (*calls, turn.name, turn.tool_call_id)]
        if tools:
            texts.append(("A tool of the row", json.dumps(tools, ensure_ascii=False)))
        for place, text in texts:
            if (token := self._first_control_token(text)) is not None:
                raise RenderingError(
                    f"{place} holds the text `{token}`, which this model reads as a control token.",
                    "Take it out, or put a space into it.",
                    RenderingCode.CONTROL_TOKEN,
                )
            if SENTINEL in text:
                message = f"{place} holds the private-use character U+E000."
                raise RenderingError(message, "Take it out.", RenderingCode.CONTROL_TOKEN)

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Tools, *, add_generation_prompt: bool) -> str:
        return self._compiled(
            messages=messages,
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self.special_tokens,
        )

    @functools.cached_property
    def _compiled(self) -> Callable[..., str]:
        if self.template is None:
            raise RenderingError(
                "The model has no chat template, so a conversation cannot be written.",
                "Use plain text (`prompt` and `completion`), or add `chat_template` to tokenizer_config.json.",
                RenderingCode.NO_CHAT_TEMPLATE,
            )
        try:
            from tuneforge.data import _environment
        except ImportError as error:
            raise MissingExtra("jinja2", "Writing a conversation") from error
        return _environment.compile_template(self.template, self.now)


def _special_tokens(config: Mapping[str, Any], ids: Mapping[int, str], folder: Path) -> dict[str, str]:
    """Reads the named special tokens; an `eos_token` that is missing is looked up by id in the generation settings."""
    sources = [_read_json(folder / "special_tokens_map.json", required=False), config]
    special: dict[str, str] = {}
    for source in sources:
        for name, value in source.items():
            content = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(content, str):
                special[name] = content
    for file in ("generation_config.json", "config.json"):
        if "eos_token" not in special:
            eos: Any = _read_json(folder / file, required=False).get("eos_token_id")
            first: Any = eos[0] if isinstance(eos, list) and eos else eos
            if first in ids:
                special["eos_token"] = ids[first]
    return special


def _template_source(config: Mapping[str, Any], folder: Path) -> str | None:
    """Finds the template where transformers keeps it: a file of its own, or a field that is a text or a named list."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None


def _read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        message = f"The model has no {path.name}."
        raise RenderingError(message, "Save its tokenizer with `save_pretrained` from a fast tokenizer.") from None
    except (ValueError, RecursionError) as error:
        raise RenderingError(f"{path.name} of the model is not JSON: {error}.", "Copy the file again.") from error
    if not isinstance(value, dict):
        raise RenderingError(f"{path.name} of the model is not a JSON object.", "Copy the file again.")
    return value
