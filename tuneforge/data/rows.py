"""Rows as a language model learns them: conversations, or a prompt with its completion.

Rows of every format and shape are read by `tuneforge.data.formats`; here those that a language model can be taught
become turns and texts. Memory stays bounded: one row is held at a time. How a row becomes text is in `rendering.py`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tuneforge.data.formats import DataFile, Limits, ParsedRow, open_rows
from tuneforge.data.identity import canonical_json
from tuneforge.data.problems import ProblemCode, RowProblem, Severity
from tuneforge.data.shapes import CONVERSATIONS, LEARNABLE, TRAINABLE, RowShape

MAX_LINE_BYTES: Final = Limits().row_bytes
"""Largest row in bytes."""
_PAIRS: Final = frozenset({RowShape.PREFERENCE})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool by the assistant."""

    name: str
    arguments: str
    """A JSON object as text, written in one way (`canonical_json`)."""
    id: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    """May be empty in an assistant's turn with tool calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the assistant calls."""
    tool_call_id: str = ""
    """The call that a tool's turn answers."""
    name: str = ""
    """The tool that answers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row. `turns` is set for conversations, `prompt` and `completion` for the others (see `is_chat`)."""

    id: str
    """SHA-256 of the row's content: equal rows have equal ids."""
    line: int
    """Number of its line in its file, from 1."""
    shape: RowShape
    turns: tuple[Turn, ...] = ()
    """The conversation; the last turn is the assistant's and no assistant's turn says and calls nothing."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The tools that the conversation may call, as chat templates take them."""
    prompt: str = ""
    """Empty for a row that is all text."""
    completion: str = ""
    context_turns: int = 0
    """Turns at the beginning that are only read, whoever speaks: those before the answers of a pair."""
    file: str = ""
    """Path of its file in the data set."""

    @property
    def is_chat(self) -> bool:
        """Whether it is a conversation, which a chat template writes."""
        return self.shape in CONVERSATIONS or bool(self.turns)


class MalformedRow(ValueError):
    """A row that cannot be read, or that a language model cannot be taught."""

    def __init__(self, problem: RowProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What was found in a file."""

    shape: RowShape | None
    """Shape of the first readable row; None when there is none."""
    rows: int
    """Rows that can be read."""
    problems: tuple[RowProblem, ...]
    """The first errors found."""
    num_problems: int
    """All errors found, also those above the limit."""


def to_rows(parsed: ParsedRow, shapes: Collection[RowShape] = LEARNABLE) -> tuple[Row, ...]:
    """Makes what is learned of a row that was read: one text, or of a pair the chosen and the rejected one.

    Args:
        parsed: the row.
        shapes: those that are wanted, all of them `LEARNABLE`.

    Raises:
        MalformedRow: it has errors, or another shape.
    """
    for problem in parsed.problems:
        if problem.severity is Severity.ERROR:
            raise MalformedRow(problem)
    content, shape = parsed.content, parsed.shape
    if content is None or shape not in shapes:
        raise MalformedRow(unlearnable(parsed, shapes))
    place: dict[str, Any] = {"id": parsed.row_id, "line": parsed.line, "shape": shape, "file": parsed.file}
    if shape is RowShape.PREFERENCE:
        return tuple(_answer(content, name, place) for name in ("chosen", "rejected"))
    return (_row(content, shape, place),)


def to_row(parsed: ParsedRow) -> Row:
    """Makes the one text that supervised fine-tuning learns of a row that was read.

    Raises:
        MalformedRow: it has errors, or a shape that supervised fine-tuning does not learn.
    """
    (row,) = to_rows(parsed, TRAINABLE)
    return row


def to_text(parsed: ParsedRow, *, rejected: bool = False) -> Row:
    """Makes one text that is learned of a row that was read: of a pair the chosen one, or the rejected one.

    Raises:
        MalformedRow: it has errors, its shape is not for language models, or there is no rejected text.
    """
    return to_rows(parsed, _PAIRS)[1] if rejected else to_rows(parsed)[0]


def _answer(content: Mapping[str, Any], name: str, place: Mapping[str, Any]) -> Row:
    """Returns the prompt of a pair with one of its answers."""
    prompt, answer = content["prompt"], content[name]
    if isinstance(answer, str):
        return Row(prompt=prompt, completion=answer, **place)
    turns = tuple(_turn(message) for message in (*prompt, *answer))
    return Row(turns=turns, context_turns=len(prompt), **place)


def _row(content: Mapping[str, Any], shape: RowShape | None, place: Mapping[str, Any]) -> Row:
    if shape is RowShape.PROMPT_COMPLETION:
        return Row(prompt=content["prompt"], completion=content["completion"], **place)
    if shape is RowShape.TEXT:
        return Row(completion=content["text"], **place)
    if shape is RowShape.INSTRUCTION:
        return Row(turns=_instruction_turns(content), **place)
    turns = tuple(_turn(message) for message in content["messages"])
    return Row(turns=turns, tools=tuple(content.get("tools", ())), **place)


def unlearnable(parsed: ParsedRow, shapes: Collection[RowShape]) -> RowProblem:
    """Returns the problem that a row has none of the shapes that a task learns from."""
    named = ", ".join(sorted(shapes))
    return RowProblem(
        line=parsed.line,
        field="",
        file=parsed.file,
        row_id=parsed.row_id,
        code=ProblemCode.MIXED_SHAPES,
        message=f"Rows of the shape {parsed.shape} cannot be learned by this task.",
        cure=f"Give rows of the shape {named}, or choose the task that learns these.",
    )


def learnable_rows(
    files: Mapping[str, Path] | Iterable[DataFile], shapes: Collection[RowShape] = TRAINABLE
) -> Iterator[tuple[ParsedRow, tuple[Row, ...]]]:
    """Reads the rows of a data set that a language model is to learn, in order, as `to_rows` makes them.

    Raises:
        MalformedRow: at the first row that cannot be read or has none of the shapes.
    """
    for parsed in open_rows(files):
        if parsed.content is not None or any(each.severity is Severity.ERROR for each in parsed.problems):
            yield parsed, to_rows(parsed, shapes)


def read_rows(path: Path) -> Iterator[Row]:
    """Reads a file's rows in order.

    Raises:
        MalformedRow: at the first row that cannot be read, or whose shape is not that of the rows before it, or at the
            end of a file without a row.
    """
    for _, rows in learnable_rows([DataFile(path.name, path)]):
        yield from rows


def check_file(path: Path, limit: int = 20) -> FileReport:
    """Reads a whole file and reports what is wrong with it.

    Args:
        path: the file; its suffix tells the format.
        limit: most problems that are listed, >= 1; all are counted.
    """
    shape: RowShape | None = None
    rows = num_problems = 0
    problems: list[RowProblem] = []
    for parsed in open_rows([DataFile(path.name, path)]):
        errors = [problem for problem in parsed.problems if problem.severity is Severity.ERROR]
        shape = shape or parsed.shape
        rows += parsed.content is not None and not errors
        num_problems += len(errors)
        problems += errors[: limit - len(problems)]
    return FileReport(shape=shape, rows=rows, problems=tuple(problems), num_problems=num_problems)


def _instruction_turns(content: Mapping[str, Any]) -> tuple[Turn, ...]:
    instruction, extra = content["instruction"], content.get("input", "")
    request = f"{instruction}\n\n{extra}" if extra else instruction
    turns = (Turn(role="user", content=request), Turn(role="assistant", content=content["output"]))
    return (Turn(role="system", content=content["system"]), *turns) if "system" in content else turns


def _turn(message: Mapping[str, Any]) -> Turn:
    calls = tuple(
        ToolCall(
            name=call["function"]["name"],
            arguments=canonical_json(call["function"]["arguments"]),
            id=call.get("id", ""),
        )
        for call in message.get("tool_calls", ())
    )
    return Turn(
        role=message["role"],
        content=message["content"],
        tool_calls=calls,
        tool_call_id=message.get("tool_call_id", ""),
        name=message.get("name", ""),
    )


__all__ = [
    "MAX_LINE_BYTES",
    "FileReport",
    "MalformedRow",
    "Row",
    "RowProblem",
    "RowShape",
    "ToolCall",
    "Turn",
    "check_file",
    "learnable_rows",
    "read_rows",
    "to_row",
    "to_rows",
    "to_text",
]
