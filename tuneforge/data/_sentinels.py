"""Conversations as chat templates take them, with sentinels where their texts are looked for."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from tuneforge.data.rows import Turn

SENTINEL: Final = "\ue000"
"""Stands around a number in place of a text while its place is looked for: a private-use character."""


class Marked(NamedTuple):
    """One sentinel."""

    turn: int
    """Index of its turn."""
    text: str
    """What stands in its place: the content of the turn, or the name of a tool that it calls."""


def messages_of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Returns turns as templates take them: the arguments of a call are an object."""
    return [_message(turn) for turn in turns]


def sentinel(number: int) -> str:
    """Returns the text of a sentinel."""
    return f"{SENTINEL}{number}{SENTINEL}"


def with_sentinels(turns: Sequence[Turn], *, only_answers: bool) -> tuple[list[dict[str, Any]], list[Marked]]:
    """Puts a sentinel in place of every content and of every called tool's name, numbered from 0.

    Args:
        turns: The conversation.
        only_answers: Leaves the turns of others as they are.

    Returns:
        The turns as templates take them, and the sentinels by number. A turn that only calls has none for its content,
        which many templates do not write then.
    """
    messages, marks = messages_of(turns), list[Marked]()
    for index, (turn, message) in enumerate(zip(turns, messages, strict=True)):
        if only_answers and turn.role != "assistant":
            continue
        if turn.content.strip() or not turn.tool_calls:
            message["content"] = sentinel(len(marks))
            marks.append(Marked(index, turn.content))
        for call, name in zip(message.get("tool_calls", ()), (each.name for each in turn.tool_calls), strict=True):
            call["function"]["name"] = sentinel(len(marks))
            marks.append(Marked(index, name))
    return messages, marks


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                **({"id": call.id} if call.id else {}),
            }
            for call in turn.tool_calls
        ]
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    if turn.name:
        message["name"] = turn.name
    return message
