"""Conversations: turns with their roles, tool calls and the order in which they may stand."""

import json
from collections.abc import Mapping
from typing import Any, Final

from tuneforge.data.problems import ProblemCode, RowFault, kind_of
from tuneforge.data.shapes.texts import json_or_same, list_of, target_of, text_of

ROLES: Final = ("system", "user", "assistant", "tool")
_ROLE_NAMES: Final = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"} | {
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    **{role: role for role in ROLES},
}
"""How ShareGPT names who speaks."""
_TURN_CURE: Final = 'Give {"role": ..., "content": ...}.'
_TURN_KEYS: Final = frozenset({"role", "content", "tool_calls", "tool_call_id", "name"})
_BARE_KEYS: Final = frozenset({"role", "content"})


def read_messages(value: Any, field: str = "messages") -> list[dict[str, Any]]:
    """Reads a list of turns and checks their order.

    Raises:
        RowFault: the first fault found.
    """
    turns = list_of(value, field, 'Give a list of {"role": ..., "content": ...}.')
    if not turns:
        cure = "Leave the row out or give it turns."
        raise RowFault(ProblemCode.BAD_CONVERSATION, "It has no turn.", cure, field=field)
    read = [_turn(turn, f"{field}[{index}]") for index, turn in enumerate(turns)]
    check_order(read, field)
    return read


def read_sharegpt(value: Any, system: Any, field: str = "conversations") -> list[dict[str, Any]]:
    """Reads a list of `{"from": ..., "value": ...}` as messages.

    Args:
        value: the list.
        system: what a column `system` beside it holds; None for nothing.
        field: name of the column.

    Raises:
        RowFault: the first fault found.
    """
    turns = list_of(value, field, 'Give a list of {"from": ..., "value": ...}.')
    messages = [_sharegpt_turn(turn, f"{field}[{index}]") for index, turn in enumerate(turns)]
    if system is not None and text_of(system, "system").strip():
        messages.insert(0, {"role": "system", "content": system})
    return read_messages(messages, field)


def read_tools(value: Any, field: str = "tools") -> list[dict[str, Any]]:
    """Reads the tools that a conversation may call, each `{"type": "function", "function": {"name": ...}}`.

    Raises:
        RowFault: the first fault found.
    """
    cure = 'Give a list of {"type": "function", "function": {"name": ..., "parameters": ...}}.'
    tools = []
    for index, tool in enumerate(list_of(value, field, cure)):
        place = f"{field}[{index}]"
        tool = json_or_same(tool)
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RowFault(ProblemCode.BAD_CONVERSATION, "It is no tool with a name.", cure, field=place)
        tools.append({"type": "function", "function": {k: v for k, v in function.items() if k != "type"}})
    return tools


def check_order(turns: list[dict[str, Any]], field: str) -> None:
    """Raises unless turns stand in an order that a model can learn from.

    A system turn stands first. User and assistant take turns; a conversation in which the assistant speaks first needs
    a system turn. A tool's turn follows the call that it answers, and each call is answered before the assistant goes
    on, except in the last turn. The last turn is the assistant's.

    Raises:
        RowFault: the first fault found.
    """
    waiting = 0  # calls that have no result yet
    before = ""
    for index, turn in enumerate(turns):
        role = turn["role"]
        place = f"{field}[{index}].role"
        if role == "system" and index:
            message, cure = f"A system turn stands at place {index + 1}.", "Put the system turn first."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=place)
        if role == "tool":
            if not waiting:
                message = f"The tool's turn at place {index + 1} answers no call."
                cure = "Put `tool_calls` into the assistant's turn before it, or leave it out."
                raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=place)
            waiting -= 1
        elif waiting:
            message = f"{waiting} tool calls before place {index + 1} have no result."
            cure = "Add a turn of the role `tool` for each call."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=place)
        if role == before and role != "tool":
            message = f"The {role} speaks twice in a row, at places {index} and {index + 1}."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, "Join the two turns.", field=place)
        waiting += len(turn.get("tool_calls", ()))
        before = role
    if before != "assistant":
        message = (
            "It has a system turn only."
            if before == "system"
            else f"The last turn is the {before}'s, so nothing follows it that could be learned."
        )
        cure = "End the row with an assistant's turn."
        raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=field)
    if turns[0]["role"] == "assistant":
        message = "The assistant speaks first, to nobody."
        cure = "Begin with a user's or a system turn."
        raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=f"{field}[0].role")


def _turn(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowFault(ProblemCode.TYPE_MISMATCH, f"It is {kind_of(value)}, not an object.", _TURN_CURE, field=path)
    if value.keys() == _BARE_KEYS and value["role"] in ("user", "system"):  # the common case, without detours
        return {"role": value["role"], "content": text_of(value["content"], f"{path}.content")}
    turn = {name: each for name, each in value.items() if each is not None}
    calls = _calls(turn["tool_calls"], f"{path}.tool_calls") if turn.get("tool_calls") else []
    _check_keys(turn, value, path, has_calls=bool(calls))
    role = turn["role"]
    content = turn.get("content", "")
    read: dict[str, Any] = {"role": role}
    if role == "assistant" and not calls:
        read["content"] = target_of(content, f"{path}.content")
    else:
        read["content"] = text_of(content, f"{path}.content")
    if calls:
        read["tool_calls"] = calls
    if role == "tool":
        read |= {name: text_of(turn[name], f"{path}.{name}") for name in ("tool_call_id", "name") if name in turn}
    return read


def _check_keys(turn: dict[str, Any], value: dict[str, Any], path: str, *, has_calls: bool) -> None:
    required = ("role",) if has_calls else ("role", "content")
    for name in required:
        if name not in turn:
            found = ", ".join(sorted(map(str, value))) or "nothing"
            message = f"`{name}` is missing; the turn has {found}."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, f"Add `{name}`.", field=f"{path}.{name}")
    role = turn["role"]
    if role not in ROLES:
        message = f"The role is {json.dumps(role, default=str)[:40]}."
        cure = "Use `system`, `user`, `assistant` or `tool`."
        raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=f"{path}.role")
    for name in turn:
        is_read = name in _BARE_KEYS or (name in _TURN_KEYS and _belongs(name, role))
        if not is_read:
            message = f"`{name}` is not read, so the row would not mean what it says."
            cure = "A turn has `role` and `content`, an assistant's perhaps `tool_calls`, a tool's `tool_call_id`."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=f"{path}.{name}")


def _belongs(name: str, role: str) -> bool:
    return role == "assistant" if name == "tool_calls" else role == "tool"


def _calls(value: Any, path: str) -> list[dict[str, Any]]:
    cure = 'Give a list of {"type": "function", "function": {"name": ..., "arguments": {...}}}.'
    return [_call(call, f"{path}[{index}]", cure) for index, call in enumerate(list_of(value, path, cure))]


def _call(value: Any, path: str, cure: str) -> dict[str, Any]:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowFault(ProblemCode.BAD_CONVERSATION, "It is no call of a function with a name.", cure, field=path)
    arguments = json_or_same(function.get("arguments") or {})
    if not isinstance(arguments, Mapping):
        message = f"The arguments of `{function['name'][:40]}` are {kind_of(arguments)}, not a JSON object."
        raise RowFault(ProblemCode.BAD_CONVERSATION, message, "Give an object.", field=f"{path}.arguments")
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": text_of(function["name"], f"{path}.name"), "arguments": dict(arguments)},
    }
    if isinstance(value.get("id"), str):
        call["id"] = value["id"]
    return call


def _sharegpt_turn(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        cure = 'Give {"from": ..., "value": ...}.'
        raise RowFault(ProblemCode.TYPE_MISMATCH, f"It is {kind_of(value)}, not an object.", cure, field=path)
    turn = {name: each for name, each in value.items() if each is not None}
    for name in ("from", "value"):
        if name not in turn:
            found = ", ".join(sorted(map(str, value))) or "nothing"
            message = f"`{name}` is missing; the turn has {found}."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, f"Add `{name}`.", field=f"{path}.{name}")
    for name in turn:
        if name not in ("from", "value"):
            message = f"`{name}` is not read, so the row would not mean what it says."
            cure = "A turn has `from` and `value` only."
            raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=f"{path}.{name}")
    speaker = turn["from"]
    role = _ROLE_NAMES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        message = f"`from` is {json.dumps(speaker, default=str)[:40]}."
        cure = "Use `human`, `gpt`, `system`, `function_call` or `observation`."
        raise RowFault(ProblemCode.BAD_CONVERSATION, message, cure, field=f"{path}.from")
    if speaker == "function_call":
        called = json_or_same(turn["value"])
        return {"role": role, "content": "", "tool_calls": called if isinstance(called, list) else [called]}
    return {"role": role, "content": turn["value"]}
