"""Rows as a language model learns them: conversations, or a prompt with its completion.

Rows of every format and shape are read by `tuneforge.data.formats`; here those that a language model can be taught
become turns and texts. Memory stays bounded: one row is held at a time. How a row becomes text is in `rendering.py`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tuneforge.data.formats import DataFile, Limits, ParsedRow, open_rows
from tuneforge.data.identity import canonical_json
from tuneforge.data.problems import ProblemCode, RowProblem, Severity
from tuneforge.data.shapes import CONVERSATIONS, TRAINABLE, RowShape

MAX_LINE_BYTES: Final = Limits().row_bytes
"""Largest row in bytes."""


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
    file: str = ""
    """Path of its file in the data set."""

    @property
    def is_chat(self) -> bool:
        """Whether it is a conversation, which a chat template writes."""
        return self.shape in CONVERSATIONS


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


def to_row(parsed: ParsedRow) -> Row:
    """Makes a row that a language model learns from one that was read.

    Raises:
        MalformedRow: it has errors, or its shape is not for language models.
    """
    for problem in parsed.problems:
        if problem.severity is Severity.ERROR:
            raise MalformedRow(problem)
    content, shape = parsed.content, parsed.shape
    if content is None or shape not in TRAINABLE:
        raise MalformedRow(untrainable(parsed))
    place: dict[str, Any] = {"id": parsed.row_id, "line": parsed.line, "shape": shape, "file": parsed.file}
    if shape is RowShape.PROMPT_COMPLETION:
        return Row(prompt=content["prompt"], completion=content["completion"], **place)
    if shape is RowShape.TEXT:
        return Row(completion=content["text"], **place)
    if shape is RowShape.INSTRUCTION:
        return Row(turns=_instruction_turns(content), **place)
    turns = tuple(_turn(message) for message in content["messages"])
    return Row(turns=turns, tools=tuple(content.get("tools", ())), **place)


def untrainable(parsed: ParsedRow) -> RowProblem:
    """Returns the problem that rows of this shape are not for supervised fine-tuning of a language model."""
    shapes = ", ".join(sorted(TRAINABLE))
    return RowProblem(
        line=parsed.line,
        field="",
        file=parsed.file,
        row_id=parsed.row_id,
        code=ProblemCode.MIXED_SHAPES,
        message=f"Rows of the shape {parsed.shape} cannot be learned by supervised fine-tuning.",
        cure=f"Give rows of one of the shapes {shapes}.",
    )


def learnable_rows(files: Mapping[str, Path] | Iterable[DataFile]) -> Iterator[tuple[ParsedRow, Row]]:
    """Reads the rows of a data set that a language model is to learn, in order.

    Raises:
        MalformedRow: at the first row that cannot be read or whose shape is not for language models.
    """
    for parsed in open_rows(files):
        if parsed.content is not None or any(each.severity is Severity.ERROR for each in parsed.problems):
            yield parsed, to_row(parsed)


def read_rows(path: Path) -> Iterator[Row]:
    """Reads a file's rows in order.

    Raises:
        MalformedRow: at the first row that cannot be read, or whose shape is not that of the rows before it, or at the
            end of a file without a row.
    """
    for _, row in learnable_rows([DataFile(path.name, path)]):
        yield row


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
]
