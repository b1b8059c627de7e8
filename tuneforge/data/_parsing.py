"""From one line of JSON to the parts of a row, with a sentence and a cure for everything that can be wrong with it.

`rows.py` is the face of this module: it adds line numbers, shapes across rows and files.
"""

import dataclasses
import difflib
import json
from typing import Any, Final, NoReturn

ROLES: Final = ("system", "user", "assistant")
_SHAPES: Final[dict[str, tuple[str, ...]]] = {
    "MESSAGES": ("messages",),
    "PROMPT_COMPLETION": ("prompt", "completion"),
    "INSTRUCTION": ("instruction", "output"),
}
_SHAPES_SENTENCE: Final = (
    'Give each row {"messages": [{"role": ..., "content": ...}, ...]}, {"prompt": ..., "completion": ...} or '
    '{"instruction": ..., "output": ...}.'
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class RowFault(Exception):
    """One fault of a row: where, what and what to do."""

    def __init__(self, *, field: str, message: str, cure: str) -> None:
        super().__init__(field, message, cure)
        self.field = field
        self.message = message
        self.cure = cure


def parse_object(line: bytes, is_whole: bool) -> dict[str, Any]:
    """Reads one line as a JSON object.

    Args:
        line: the line's bytes.
        is_whole: whether a line break ends it; if not, a fault at its end is called a cut-off.

    Raises:
        RowFault: not UTF-8, not JSON, not an object, a key twice.
    """
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        message = f"Byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8."
        raise RowFault(field="", message=message, cure="Save the file as UTF-8.") from None
    try:
        row = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if not is_whole and (error.pos >= len(text) or "Unterminated" in error.msg):
            message = f"The file ends in the middle of this row, after {len(text)} characters."
            raise RowFault(field="", message=message, cure="Write the file again; the copy was cut off.") from None
        message = f"It is not JSON: {error.msg} at character {error.colno}."
        raise RowFault(
            field="", message=message, cure="Write one JSON object a line, without a comma after it."
        ) from None
    except (ValueError, RecursionError) as error:
        message = f"It is not JSON that can be read: {type(error).__name__}."
        raise RowFault(
            field="", message=message, cure="Leave out deep nesting and numbers of thousands of digits."
        ) from None
    if not isinstance(row, dict):
        raise RowFault(field="", message=f"It is {_kind(row)}, not an object.", cure=_SHAPES_SENTENCE)
    return row


def parse_row(row: dict[str, Any]) -> tuple[str, tuple[Turn, ...], tuple[str, str]]:
    """Reads the parts of a row.

    Returns:
        Name of its shape; its turns (empty for PROMPT_COMPLETION); its prompt and completion (blank otherwise).

    Raises:
        RowFault: the first fault found.
    """
    shape = _shape_of(row)
    if shape == "MESSAGES":
        return shape, _messages(row["messages"]), ("", "")
    if shape == "PROMPT_COMPLETION":
        return shape, (), (_text(row["prompt"], "prompt"), _target(row["completion"], "completion"))
    instruction = _text(row["instruction"], "instruction")
    extra = "" if row.get("input") is None else _text(row["input"], "input")
    output = _target(row["output"], "output")
    request = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return shape, (Turn(role="user", content=request), Turn(role="assistant", content=output)), ("", "")


def _shape_of(row: dict[str, Any]) -> str:
    found = [shape for shape, columns in _SHAPES.items() if all(column in row for column in columns)]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"`{name}`" for name in sorted(row)[:8]) or "no column"
    if found:
        names = " and ".join(f"`{_SHAPES[shape][0]}`" for shape in found)
        raise RowFault(field="", message=f"It has the columns of several shapes: {names}.", cure="Keep one of them.")
    for required in _SHAPES.values():
        missing = [column for column in required if column not in row]
        if len(missing) < len(required):
            message = f"The column `{missing[0]}` is missing; the row has {columns}."
            raise RowFault(field=missing[0], message=message, cure=f"Add `{missing[0]}`.")
    known = [column for required in _SHAPES.values() for column in required]
    for name in row:
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
            message = f"The column `{name}` is not known; `{near[0]}` is."
            raise RowFault(field=name, message=message, cure=f"Rename `{name}` to `{near[0]}`.")
    raise RowFault(field="", message=f"It has {columns}, which is no known shape.", cure=_SHAPES_SENTENCE)


def _messages(value: Any) -> tuple[Turn, ...]:
    if not isinstance(value, list):
        cure = 'Give a list of {"role": ..., "content": ...}.'
        raise RowFault(field="messages", message=f"It is {_kind(value)}, not a list.", cure=cure)
    if not value:
        raise RowFault(field="messages", message="It has no turn.", cure="Leave the row out or give it turns.")
    turns = tuple(_turn(turn, f"messages[{index}]") for index, turn in enumerate(value))
    if turns[-1].role != "assistant":
        message = f"The last turn is the {turns[-1].role}'s, so nothing follows it that could be learned."
        raise RowFault(field="messages", message=message, cure="End the row with an assistant's turn.")
    for index, turn in enumerate(turns):
        if turn.role == "system" and index:
            message = f"A system turn stands at place {index + 1}."
            raise RowFault(field=f"messages[{index}].role", message=message, cure="Put the system turn first.")
    return turns


def _turn(value: Any, path: str) -> Turn:
    if not isinstance(value, dict):
        cure = 'Give {"role": ..., "content": ...}.'
        raise RowFault(field=path, message=f"It is {_kind(value)}, not an object.", cure=cure)
    for name in ("role", "content"):
        if name not in value:
            message = f"`{name}` is missing; the turn has {', '.join(sorted(value)) or 'nothing'}."
            raise RowFault(field=f"{path}.{name}", message=message, cure=f"Add `{name}`.")
    for name in value:
        if name not in {"role", "content"}:
            message = f"`{name}` is not read, so the row would not mean what it says."
            raise RowFault(field=f"{path}.{name}", message=message, cure="A turn has `role` and `content` only.")
    role = value["role"]
    if role not in ROLES:
        message = f"The role is {json.dumps(role)[:40]}."
        raise RowFault(field=f"{path}.role", message=message, cure="Use `system`, `user` or `assistant`.")
    read = _target if role == "assistant" else _text
    return Turn(role=role, content=read(value["content"], f"{path}.content"))


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise RowFault(field=field, message=f"It is {_kind(value)}, not a text.", cure="Give one string.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"Character {error.start + 1} is half of a surrogate pair, which is no character."
        raise RowFault(field=field, message=message, cure="Write the character whole, or leave it out.") from None
    return value


def _target(value: Any, field: str) -> str:
    text = _text(value, field)
    if not text.strip():
        message = "It is empty, so there is nothing to learn from."
        raise RowFault(field=field, message=message, cure="Leave the row out or fill it in.")
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_constant(name: str) -> NoReturn:
    raise RowFault(field="", message=f"It holds {name}, which is not JSON.", cure="Use null or a number.")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                message = f"The column `{name}` stands twice in it."
                raise RowFault(field=name, message=message, cure="Keep one of the two.")
            seen.add(name)
    return unique
