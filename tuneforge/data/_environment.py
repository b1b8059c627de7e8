"""The sandbox that chat templates run in: jinja2 as Hugging Face templates expect it, without a way to the outside.

A template comes with a model, so it is somebody else's program. It gets the conversation and the special tokens; it
reaches no attribute of Python, changes nothing it is given, and has a budget (`_budget.py`) of steps and of text.
"""

import datetime as dt
import functools
import json
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.visitor

from tuneforge.data._budget import Budget
from tuneforge.data.faults import RenderingCode, RenderingError

_MAX_REPEAT: Final = 1_000_000
"""Largest result of `*` on a text or list, and largest operand of `**`: far above what a template needs for padding."""

_GROWING_METHODS: Final = frozenset({"center", "ljust", "rjust", "zfill", "replace", "join", "expandtabs"})
_SHALLOW_FILTERS: Final = frozenset(
    {"length", "count", "first", "last", "default", "d", "list", "map", "items"}
    | {"select", "selectattr", "reject", "rejectattr"}
)
"""Filters that do not look into what is in a list; the others are measured with all that is in it."""

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


class _Counting(jinja2.visitor.NodeTransformer):
    """Puts a call of `Environment.step` into every loop, and makes `~` a call, so that all of them are counted."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.For:
        """Counts each iteration, and each test of an item that is passed over."""
        self.generic_visit(node)
        step = jinja2.nodes.EnvironmentAttribute("step", lineno=node.lineno)
        node.body.insert(0, jinja2.nodes.ExprStmt(step, lineno=node.lineno))
        if node.test is not None:
            node.test = jinja2.nodes.And(step, node.test, lineno=node.lineno)
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Call:
        """Has the texts put together by a function that looks at their size first."""
        self.generic_visit(node)
        return _call("join_texts", node.nodes, node.lineno)


def _call(method: str, arguments: list[jinja2.nodes.Expr], line: int) -> jinja2.nodes.Call:
    function = jinja2.nodes.EnvironmentAttribute(method, lineno=line)
    return jinja2.nodes.Call(function, arguments, [], None, None, lineno=line)


class _Formatter(jinja2.sandbox.SandboxedFormatter):
    """`str.format` with a bound on each field and on all together."""

    def __init__(self, environment: jinja2.Environment, budget: Budget) -> None:
        super().__init__(environment)
        self._budget = budget
        self._made = 0

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """Measures a value before it becomes text."""
        self._budget.measured(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Measures a field before it is made, and adds it up."""
        self._budget.check_spec(format_spec, value)
        text = str(super().format_field(value, format_spec))
        self._made += len(text)
        self._budget.fits(self._made)
        return text


_CURE: Final = "Correct `chat_template` in the model's tokenizer files."


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's immutable sandbox with a budget: on steps, and on the size of whatever a template makes."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        self.budget = budget = Budget()
        super().__init__(finalize=self._finalized, **options)
        self.concat = budget.concat  # type: ignore[method-assign]
        for name in ("lipsum", "urlize", "random"):  # of no use to a template, and without a bound
            self.globals.pop(name, None)
            self.filters.pop(name, None)
        self.filters = {name: _bounded(name, function, budget) for name, function in self.filters.items()}

    @property
    def step(self) -> bool:
        """Counts an iteration of a loop, each of which reads it: a call would go through the sandbox's own checks."""
        self.budget.step()
        return True

    def join_texts(self, *values: Any) -> str:
        """Computes `a ~ b ~ c`."""
        self.budget.fits(sum(self.budget.measured(value) for value in values))
        return jinja2.runtime.str_join(values)

    def _finalized(self, value: Any) -> Any:
        self.budget.measured(value)
        return value

    def _generate(self, source: jinja2.nodes.Template, *args: Any, **options: Any) -> str:
        counting: jinja2.nodes.Template = _Counting().visit(source)
        return super()._generate(counting.set_environment(self), *args, **options)  # type: ignore[arg-type]

    def call(__self, __context: jinja2.runtime.Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls a function or macro and counts it; the names are the base class's, so that a macro may have `self`."""
        __self.budget.step()
        result = super().call(__context, __obj, *args, **kwargs)
        __self.budget.spend(result)
        return result

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuses beside all else what makes bytes, which no template needs, or a text of any length."""
        return attr not in {"encode", "to_bytes", "translate"} and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Wraps a text's methods that may make it grow; jinja2 asks this for every attribute that a template reads."""
        is_method = isinstance(value, types.MethodType | types.BuiltinMethodType)
        if not is_method or not isinstance(text := value.__self__, str):
            return None
        budget, name = self.budget, value.__name__
        if name in {"format", "format_map"}:

            def formatted(*args: Any, **kwargs: Any) -> str:
                fields = args[0] if name == "format_map" else kwargs
                return _Formatter(self, budget).vformat(str(text), () if name == "format_map" else args, fields)

            return formatted
        if name not in _GROWING_METHODS:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            parts = [list(budget.counted(arg)) if isinstance(arg, Iterator) else arg for arg in args]
            if name == "join":
                budget.check_growth("join", [*parts, text], {})
            else:
                budget.check_growth(name, [text, *parts], kwargs)
            return str(value(*parts, **kwargs))

        return bounded

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any) -> Any:
        """Computes `left operator right`, or refuses a result that would be huge."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):  # what templates do most
            self.budget.spend_size(len(left) + len(right))
            return left + right
        if operator == "**" and (abs(left) > _MAX_REPEAT or abs(right) > 64):
            raise jinja2.exceptions.SecurityError("a power in it is too large")
        if operator == "*":
            _check_product(left, right)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            self.budget.fits(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            self.budget.check_percent(left, right)
        result = super().call_binop(context, operator, left, right)
        self.budget.spend(result)
        return result


def _check_product(left: Any, right: Any) -> None:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, str | list | tuple) and isinstance(count, int) and len(text) * count > _MAX_REPEAT:
            raise jinja2.exceptions.SecurityError("a repetition in it is too large")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 4096:
        raise jinja2.exceptions.SecurityError("a number in it is too large")


def _bounded(name: str, function: Callable[..., Any], budget: Budget) -> Callable[..., Any]:
    """Returns a filter that counts itself, what it is given and what it makes."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget.step()
        values = list(args[first:])
        if name == "join" and values and isinstance(values[0], Iterator):
            values[0] = list(budget.counted(values[0]))
        for value in (*values, *kwargs.values()):
            if name in _SHALLOW_FILTERS:
                budget.spend(value)
            else:
                budget.measured(value)
        budget.check_growth(name, values, kwargs)
        result = function(*args[:first], *values, **kwargs)
        budget.spend(result)
        return budget.counted(result) if isinstance(result, types.GeneratorType) else result

    return bounded


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
    environment.filters["tojson"] = _bounded("tojson", _to_json, environment.budget)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = now.strftime
    try:
        environment.budget.begin(source)
        template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        message = f"The chat template is no jinja2 template: {error.message} (line {error.lineno})."
        raise RenderingError(message, _CURE, RenderingCode.TEMPLATE_INVALID) from error

    except (RecursionError, MemoryError) as error:
        message = "The chat template is nested too deeply."
        raise RenderingError(message, _CURE, RenderingCode.TEMPLATE_INVALID) from error

    def render(**variables: Any) -> str:
        try:
            environment.budget.begin(variables)
            return template.render(**variables)
        except _Refusal as refusal:
            message = f"The chat template refuses the conversation: {str(refusal).rstrip('.')}."
            raise RenderingError(
                message, "Give the turns in the form that this model takes.", RenderingCode.TEMPLATE_REFUSES
            ) from None
        # A template is a program: beside jinja2's own errors it fails in every way that an expression can.
        except (jinja2.TemplateError, *_EXPRESSION_ERRORS) as error:
            message = f"The chat template fails: {str(error).rstrip('.') or type(error).__name__}."
            raise RenderingError(message, _CURE, RenderingCode.TEMPLATE_FAILS) from error

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
