"""A template that loops or makes text without end is refused soon, and one that writes a long conversation is not."""

import time

import pytest

from tests.unit.data import templates
from tuneforge.data.faults import RenderingError
from tuneforge.data.rendering import ChatFormat
from tuneforge.data.rows import Turn

DOUBLED = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
HUGE = 3_000_000_000


def _written(template: str, *contents: str) -> str:
    chat_format = ChatFormat(
        template=template, special_tokens={"bos_token": "<s>", "eos_token": "</s>"}, control_tokens=frozenset(["</s>"])
    )
    return chat_format.render_prompt([Turn(role="user", content=content) for content in contents or ("hi",)])


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% for a in range(99999) %}{% set z = range(99999)|sum %}{% endfor %}",
        "{% for a in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    ],
)
def test_endless_work_is_refused(template: str) -> None:
    """Loops, in whatever way they are written, end with the template's fault."""
    began = time.monotonic()
    with pytest.raises(RenderingError, match="chat template fails"):
        _written(template)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "expression",
    [
        f"'%{HUGE}d' % 1",
        f"'%*d' % ({HUGE}, 1)",
        f"'%{HUGE}d'|format(1)",
        f"'{{:{HUGE}d}}'.format(1)",
        f"'{{:{{}}d}}'.format(1, {HUGE})",
        f"'a'|center({HUGE})",
        f"'a'.center({HUGE})",
        f"'a'['ljust']({HUGE})",
        f"'a'.rjust({HUGE})",
        f"'a'.zfill({HUGE})",
        f"'a'|indent({HUGE}, true)",
        f"'\t'.expandtabs({HUGE})",
        f"[1]|batch({HUGE}, 'a')|list",
        "('a' * 1000000).replace('a', 'a' * 3000)",
        "('a' * 1000000)|replace('a', 'a' * 3000)",
        "('a' * 1000000).join(['b'] * 3000)",
        "(['b'] * 3000)|join('a' * 1000000)",
        "range(3000)|map('center', 1000000)|join",
        "('a' * 1000000).encode()",
        "(1).to_bytes(1000000)",
        "lipsum(1000000)",
    ],
)
def test_a_huge_text_is_refused(expression: str) -> None:
    """No operator, method or filter makes a text of any length."""
    with pytest.raises(RenderingError, match="chat template fails"):
        _written("{% set z = " + expression + " %}{{ z|length }}")


@pytest.mark.parametrize("grown", ["ns.x ~ ns.x", "ns.x + ns.x", "'%s%s' % (ns.x, ns.x)", "'{0}{0}'.format(ns.x)"])
def test_a_text_that_doubles_is_refused(grown: str) -> None:
    """A text that grows in small steps is refused at the limit, which the sentence names."""
    grow = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(30) %}{% set ns.x = " + grown + " %}{% endfor %}"
    with pytest.raises(RenderingError, match="more than 4194304 characters"):
        _written(grow)


@pytest.mark.parametrize("use", ["{{ ns.x }}", "{{ ns }}", "{{ ns.x|tojson }}", "{{ ns.x ~ '' }}", "{{ '%s' % ns.x }}"])
def test_lists_in_lists_are_measured_before_they_are_text(use: str) -> None:
    """A list that holds one list twice, forty levels deep, is small in memory and endless as text."""
    with pytest.raises(RenderingError, match="more than 4194304 characters"):
        _written(DOUBLED + use)


def test_a_long_output_is_refused() -> None:
    """What is written piece by piece is added up, in a macro too."""
    loop = "{% for i in range(1000) %}{{ 'a' * 10000 }}{% endfor %}"
    for template in (loop, "{% macro f() %}" + loop + "{% endmacro %}{{ f()|length }}"):
        with pytest.raises(RenderingError, match="more than 4194304 characters"):
            _written(template)


def test_a_long_conversation_is_written() -> None:
    """The limits grow with the input: thousands of turns and a turn of millions of characters are both written."""
    many = _written(templates.SMOLLM2, *["some words"] * 5000)
    assert many.count("<|im_start|>") == 5002
    long = "word " * 1_200_000
    assert long in _written(templates.SMOLLM2, long)


def test_each_rendering_has_its_own_budget() -> None:
    """A rendering takes nothing from the next."""
    template = "{% for i in range(60000) %}{% endfor %}{{ 'a' ~ 1 ~ '-%03d' % 7 }}"
    chat_format = ChatFormat(template=template, special_tokens={}, control_tokens=frozenset())
    assert [chat_format.render_prompt([Turn(role="user", content="a")]) for _ in range(3)] == ["a1-007"] * 3
