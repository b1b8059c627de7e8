"""The sandbox that chat templates run in: jinja2 as Hugging Face templates expect it, without a way to the outside.

A template comes with a model, so it is somebody else's program. It gets the conversation and the special tokens; it
reaches no attribute of Python, changes nothing it is given, and builds no text of unbounded length by multiplication.
"""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from tuneforge.data.faults import RenderingError

_MAX_REPEAT: Final = 1_000_000
"""Largest result of `*` on a text or list, and largest operand of `**`: far above what a template needs for padding."""


_EXPRESSION_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Refusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %} ... {% endgeneration %}`, by which some templates mark assistants' turns; the text stays."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Returns the body as it stands; which part is learned is found by `rendering.py`, for every template alike."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox with bounds on what `*` and `**` may make."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Computes `left operator right`, or refuses a result that would be huge."""
        if operator == "**" and (abs(left) > _MAX_REPEAT or abs(right) > 64):
            raise jinja2.exceptions.SecurityError("a power in it is too large")
        for text, count in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(count, int) and len(text) * count > _MAX_REPEAT:
                raise jinja2.exceptions.SecurityError("a repetition in it is too large")
        return super().call_binop(context, operator, left, right)


def compile_template(source: str, now: dt.datetime) -> Callable[..., str]:
    """Compiles a chat template.

    Args:
        source: the template.
        now: what `strftime_now` tells.

    Returns:
        A function from the template's variables, given by name, to its text. It raises RenderingError alone.

    Raises:
        RenderingError: it is not a template.
    """
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = now.strftime
    try:
        template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        message = f"The chat template is no jinja2 template: {error.message} (line {error.lineno})."
        raise RenderingError(message, "Correct `chat_template` in the model's tokenizer files.") from error

    def render(**variables: Any) -> str:
        try:
            return template.render(**variables)
        except _Refusal as refusal:
            message = f"The chat template refuses the conversation: {str(refusal).rstrip('.')}."
            raise RenderingError(message, "Give the turns in the form that this model takes.") from None
        # A template is a program: beside jinja2's own errors it fails in every way that an expression can.
        except (jinja2.TemplateError, *_EXPRESSION_ERRORS) as error:
            message = f"The chat template fails: {str(error).rstrip('.') or type(error).__name__}."
            raise RenderingError(message, "Correct `chat_template` in the model's tokenizer files.") from error

    return render


def _raise_exception(message: str) -> NoReturn:
    raise _Refusal(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own `tojson` escapes HTML, which would change what the model reads."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
