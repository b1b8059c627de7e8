"""Calls of tools are written, learned with the turn that makes them, and never dropped in silence."""

import dataclasses
from typing import Any

import pytest

from tests.unit.data import templates
from tuneforge.data.faults import RenderingCode, RenderingError
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Row, RowShape, ToolCall, Turn

# In the style of Qwen2.5: tools in the system turn, each call as JSON between marks, results as the user's turns.
QWEN = (
    "{%- if tools %}{{- '<|im_start|>system\nTools:' }}{%- for tool in tools %}{{- '\n' + (tool | tojson) }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'tool' %}"
    "{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' and message.tool_calls %}"
    "{{- '<|im_start|>assistant' }}{%- if message.content %}{{- '\n' + message.content }}{%- endif %}"
    "{%- for call in message.tool_calls %}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
# In the style of Mistral: a control token opens the calls, and the turn's end follows them.
MISTRAL = (
    "{{- bos_token }}{%- if tools %}{{- '[TOOLS]' + (tools | tojson) }}{%- endif %}{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}"
    "{%- elif message.role == 'tool' %}{{- '[RESULT] ' + message.content + ' [/RESULT]' }}"
    "{%- elif message.tool_calls %}{{- '[TOOL_CALLS] [' }}{%- for call in message.tool_calls %}"
    "{{- call.function | tojson }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ']' + eos_token }}"
    "{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"
)
CONTROL = frozenset({"<s>", "</s>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]", "[INST]", "[/INST]"})
TOOLS: tuple[dict[str, Any], ...] = ({"type": "function", "function": {"name": "clock", "parameters": {}}},)
CALL = ToolCall(name="clock", arguments='{"zone":"UTC"}')
TURNS = (
    Turn(role="user", content="What time is it?"),
    Turn(role="assistant", content="", tool_calls=(CALL, dataclasses.replace(CALL, arguments='{"zone":"CET"}'))),
    Turn(role="tool", content="12:00"),
    Turn(role="tool", content="13:00"),
    Turn(role="assistant", content="Noon."),
)


def _format(template: str) -> ChatFormat:
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatFormat(template=template, special_tokens=special, control_tokens=CONTROL)


def _row(turns: tuple[Turn, ...] = TURNS, tools: tuple[dict[str, Any], ...] = TOOLS) -> Row:
    return Row(id="", line=1, shape=RowShape.MESSAGES, turns=turns, tools=tools)


def _learned(template: str, row: Row) -> list[str]:
    rendering = _format(template).render_row(row)
    return [rendering.text[start:end] for start, end in rendering.supervised]


def test_calls_are_learned_whole() -> None:
    """All that the assistant writes is learned: marks, names, arguments and the end; results are not."""
    assert _learned(QWEN, _row()) == [
        '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {"zone": "CET"}}\n</tool_call><|im_end|>',
        "Noon.<|im_end|>",
    ]


def test_words_before_a_call_are_learned_too() -> None:
    """A turn that says something and then calls is learned from its first word on."""
    turns = (TURNS[0], dataclasses.replace(TURNS[1], content="I look."), *TURNS[2:])
    calls, _ = _learned(QWEN, _row(turns))
    assert calls.startswith("I look.\n<tool_call>")
    assert calls.endswith("</tool_call><|im_end|>")


def test_a_control_token_may_open_the_calls() -> None:
    """Calls behind a control token end with the turn's end token."""
    assert _learned(MISTRAL, _row()) == [
        '[TOOL_CALLS] [{"name": "clock", "arguments": {"zone": "UTC"}}, '
        '{"name": "clock", "arguments": {"zone": "CET"}}]</s>',
        " Noon.</s>",
    ]


@pytest.mark.parametrize("template", [templates.SMOLLM2, templates.LLAMA3])
def test_a_template_that_drops_calls_is_told(template: str) -> None:
    """A template that knows no tools is not taken for one that does."""
    with pytest.raises(RenderingError, match="drops a tool call of turn 2") as raised:
        _learned(template, _row(tools=()))
    assert raised.value.code is RenderingCode.TURN_DROPPED
    with pytest.raises(RenderingError, match="does not write the row's tools"):
        _learned(template, _row((TURNS[0], TURNS[-1])))


@pytest.mark.parametrize(
    ("turns", "tools"),
    [
        ((TURNS[0], dataclasses.replace(TURNS[1], tool_calls=(ToolCall(name="<s>", arguments="{}"),))), ()),
        ((TURNS[0], dataclasses.replace(TURNS[1], tool_calls=(ToolCall(name="a", arguments='{"b":"</s>"}'),))), ()),
        ((TURNS[0], TURNS[-1]), ({"type": "function", "function": {"name": "a", "description": "<|im_end|>"}},)),
    ],
)
def test_control_tokens_in_calls_and_tools_are_refused(
    turns: tuple[Turn, ...], tools: tuple[dict[str, Any], ...]
) -> None:
    """Neither names nor arguments nor descriptions may hold what ends a turn."""
    with pytest.raises(RenderingError) as raised:
        _learned(QWEN, _row(turns, tools))
    assert raised.value.code is RenderingCode.CONTROL_TOKEN
