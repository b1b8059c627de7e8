"""From the columns of a row to its shape, and from its values to its content."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from tuneforge.data.problems import ProblemCode, RowFault
from tuneforge.data.shapes.conversation import read_messages, read_sharegpt, read_tools
from tuneforge.data.shapes.labelled import label_of, read_text_label
from tuneforge.data.shapes.names import RowShape
from tuneforge.data.shapes.preference import read_preference
from tuneforge.data.shapes.session import read_ranked, read_session
from tuneforge.data.shapes.texts import target_of, text_of

SHAPES_SENTENCE: Final = (
    "Give `instruction` and `output` (perhaps `input`), or `text`, or `prompt` and `completion`, or `messages`, or "
    "`conversations`, or `prompt`, `chosen` and `rejected`, or `text` or `image` with `label`, or a click session."
)
_IDS: Final = ("id", "sample_id", "session_id")
"""Columns that name a row, of which no two may be alike."""
_VAGUE: Final = frozenset({"session_id", "label", "query", "results", "ranks"})
"""Names that many tables have, so that alone they do not tell what a row was meant to be."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    """What the columns of a shape are."""

    shape: RowShape
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Other name -> the name that is meant."""
    read: Callable[[dict[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Recognition:
    """How rows with certain columns are read."""

    shape: RowShape
    read: Callable[[dict[str, Any]], dict[str, Any]]
    """From a row to its content; raises `RowFault`."""
    columns: tuple[str, ...]
    """The columns that are read, as the file names them."""
    renamed: tuple[tuple[str, str], ...]
    """Columns that are read under another name: (name in the file, name that is meant)."""
    ignored: tuple[str, ...]
    """Columns that are not read."""
    id_column: str | None
    """The column that names the row; None without one."""


def _messages(row: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"messages": read_messages(row["messages"])}
    return content if row.get("tools") in (None, [], "") else content | {"tools": read_tools(row["tools"])}


def _conversations(row: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"messages": read_sharegpt(row["conversations"], row.get("system"))}
    return content if row.get("tools") in (None, [], "") else content | {"tools": read_tools(row["tools"])}


def _prompt_completion(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": text_of(row["prompt"], "prompt"), "completion": target_of(row["completion"], "completion")}


def _instruction(row: dict[str, Any]) -> dict[str, Any]:
    content = {"instruction": text_of(row["instruction"], "instruction"), "output": target_of(row["output"], "output")}
    for name in ("input", "system"):
        value = row.get(name)
        if value is not None and (text := text_of(value, name)).strip():
            content[name] = text
    return content


def _text(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": target_of(row["text"], "text")}


def _image(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["image"], "label": label_of(row["label"])}


_LABELS: Final = {"labels": "label", "category": "label", "class": "label"}
_PREFERENCE: Final = _Pattern(
    shape=RowShape.PREFERENCE, required=("chosen", "rejected"), optional=("prompt",), read=read_preference
)
_STRONG: Final = (
    _Pattern(shape=RowShape.MESSAGES, required=("messages",), optional=("tools",), read=_messages),
    _Pattern(
        shape=RowShape.SHAREGPT,
        required=("conversations",),
        optional=("system", "tools"),
        synonyms={"conversation": "conversations"},
        read=_conversations,
    ),
    _Pattern(
        shape=RowShape.PROMPT_COMPLETION,
        required=("prompt", "completion"),
        synonyms={"response": "completion"},
        read=_prompt_completion,
    ),
    _Pattern(
        shape=RowShape.INSTRUCTION,
        required=("instruction", "output"),
        optional=("input", "system"),
        synonyms={"response": "output", "context": "input"},
        read=_instruction,
    ),
    _Pattern(
        shape=RowShape.CLICK_SESSION,
        required=("session_id", "search_query", "search_results"),
        optional=("events", "created_at", "search_meta", "payload_filter", "sort_by", "user_id", "is_payload_search"),
        read=read_session,
    ),
    _Pattern(
        shape=RowShape.CLICK_SESSION,
        required=("query", "results", "ranks"),
        optional=("events", "event_types", "timestamp", "session_id"),
        read=read_ranked,
    ),
    _Pattern(
        shape=RowShape.IMAGE_LABEL,
        required=("image", "label"),
        synonyms={"image_path": "image", "file_name": "image", "image_file": "image", **_LABELS},
        read=_image,
    ),
)
_LABELLED: Final = _Pattern(
    shape=RowShape.TEXT_LABEL,
    required=("text", "label"),
    synonyms={"sentence": "text", **_LABELS},
    read=read_text_label,
)


@functools.lru_cache(maxsize=1024)
def recognise(columns: tuple[str, ...]) -> Recognition:
    """Returns how rows with these columns are read.

    A synonym counts where the column itself is missing. Without any other shape, the first column whose name holds
    `text` or `content` is the text.

    Raises:
        RowFault: the columns are those of no shape, or of several.
    """
    present = frozenset(columns)
    if found := _match(_PREFERENCE, present, columns):
        return found
    strong = [found for pattern in _STRONG if (found := _match(pattern, present, columns))]
    exact = [found for found in strong if not found.renamed] or strong
    shapes = {found.shape for found in exact}
    if len(shapes) == 1:
        return exact[0]
    if shapes:
        names = " and ".join(f"`{next(p for p in _STRONG if p.shape is f.shape).required}`" for f in exact)
        message = f"It has the columns of several shapes: {names}."
        raise RowFault(ProblemCode.AMBIGUOUS_COLUMNS, message, "Keep one of them.")
    if found := _match(_LABELLED, present, columns):
        return found
    if (fault := _incomplete(columns)) is not None:
        raise fault
    for name in columns:
        if ("text" in name.lower() or "content" in name.lower()) and name.lower() != "context":
            pattern = _Pattern(
                shape=RowShape.TEXT, required=("text",), synonyms={} if name == "text" else {name: "text"}, read=_text
            )
            return _recognition(pattern, {"text": name}, columns)
    raise _unknown(columns)


def _match(pattern: _Pattern, present: frozenset[str], columns: tuple[str, ...]) -> Recognition | None:
    places: dict[str, str] = {}
    for wanted in (*pattern.required, *pattern.optional):
        other = [name for name, meant in pattern.synonyms.items() if meant == wanted and name in present]
        if wanted in present:
            places[wanted] = wanted
        elif len(other) == 1:
            places[wanted] = other[0]
    return _recognition(pattern, places, columns) if all(name in places for name in pattern.required) else None


def _recognition(pattern: _Pattern, places: dict[str, str], columns: tuple[str, ...]) -> Recognition:
    renamed = tuple((name, meant) for meant, name in places.items() if name != meant)
    taken = set(places.values())
    return Recognition(
        shape=pattern.shape,
        read=_reader(pattern.read, renamed) if renamed else pattern.read,
        columns=tuple(places.values()),
        renamed=renamed,
        ignored=tuple(name for name in columns if name not in taken),
        id_column=next((name for name in _IDS if name in columns), None),
    )


def _reader(
    read: Callable[[dict[str, Any]], dict[str, Any]], renamed: tuple[tuple[str, str], ...]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def renaming(row: dict[str, Any]) -> dict[str, Any]:
        return read(row | {meant: row[name] for name, meant in renamed})

    return renaming


def _incomplete(columns: tuple[str, ...]) -> RowFault | None:
    """Returns what is missing of the shape that a row has a part of."""
    for pattern in (_PREFERENCE, *_STRONG):
        missing = [name for name in pattern.required if name not in columns]
        if any(name in columns and name not in _VAGUE for name in pattern.required):
            message = f"The column `{missing[0]}` is missing; the row has {_named(columns)}."
            return RowFault(ProblemCode.MISSING_COLUMN, message, f"Add `{missing[0]}`.", field=missing[0])
    return None


def _unknown(columns: tuple[str, ...]) -> RowFault:
    known = sorted({name for pattern in (_PREFERENCE, _LABELLED, *_STRONG) for name in pattern.required})
    for name in columns:
        near = [each for each in known if each == name.strip().lower()]
        if near := near or difflib.get_close_matches(name, known, n=1, cutoff=0.75):
            message = f"The column `{name[:60]}` is not known; `{near[0]}` is."
            cure = f"Rename `{name[:60]}` to `{near[0]}`."
            return RowFault(ProblemCode.MISSING_COLUMN, message, cure, field=name[:60])
    message = f"It has {_named(columns)}, which is no known shape."
    return RowFault(ProblemCode.MISSING_COLUMN, message, SHAPES_SENTENCE)


def _named(columns: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{name[:40]}`" for name in sorted(columns)[:8])
    return (shown + (f" and {len(columns) - 8} more" if len(columns) > 8 else "")) or "no column"
