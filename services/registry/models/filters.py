"""Which models or versions a list has and in what order: read from the request, checked, and made a query.

Fields, no language: nothing is parsed that could grow deep, and no pattern is ever run, so a bad filter is answered as
fast as a good one.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.models.facts import size_bounds
from services.registry.tables import MODEL_LABELS
from tuneforge.architectures import FRAMEWORK, KNOWN_ARCHITECTURES, ModelTask
from tuneforge.v1 import events_pb2, models_pb2

LONGEST_QUERY = 200
MOST_LABELS = 16
KEYS = ("name", "date", "size")
_LAST = 1.7e308
"""Stands for a metric that an entry does not have: beyond every figure of a run."""


@dataclass(frozen=True, slots=True)
class Order:
    """By what a list is ordered."""

    key: str
    """One of `KEYS`, or `metric`."""
    metric: str
    """Name of the metric; empty for the others."""
    is_descending: bool


def order_of(text: str, default: str) -> Order:
    """Reads `order_by`.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    words = (text or default).split()
    key, _, metric = words[0].partition(":") if words else ("", "", "")
    is_known = (key in KEYS and not metric) or (key == "metric" and 0 < len(metric) <= LONGEST_QUERY)
    if not is_known or len(words) > 2 or (len(words) == 2 and words[1] not in ("asc", "desc")):
        form = "give `name`, `date`, `size` or `metric:NAME`, and ` desc` for the largest first"
        raise invalid_fields([FieldViolation("order_by", f"is {text[:80]!r}; {form}")])
    return Order(key=key, metric=metric, is_descending=words[-1] == "desc")


def check_filter(message: models_pb2.ModelFilter) -> None:
    """Refuses a filter that could match nothing, or is larger than any use of it.

    Raises:
        ServiceError: `INVALID_FIELD` with all that is wrong.
    """
    violations = [
        FieldViolation(f"filter.{name}", f"has {len(getattr(message, name))} characters; at most {longest} are taken")
        for name, longest in (("query", LONGEST_QUERY), ("license", LONGEST_QUERY), ("domain", LONGEST_QUERY))
        if len(getattr(message, name)) > longest
    ]
    violations += [
        FieldViolation(f"filter.{name}", f"has {len(getattr(message, name))} entries; at most {MOST_LABELS} are taken")
        for name in ("tags", "metadata")
        if len(getattr(message, name)) > MOST_LABELS
    ]
    choices: tuple[tuple[str, Sequence[str]], ...] = (
        ("task", tuple(ModelTask)),
        ("framework", (FRAMEWORK,)),
        ("architecture", KNOWN_ARCHITECTURES),
    )
    for name, known in choices:
        if (value := getattr(message, name)) and value not in known:
            violations.append(FieldViolation(f"filter.{name}", f"is {value[:80]!r}; known are {', '.join(known)}"))
    for name, enum in (("size_class", models_pb2.SizeClass), ("kind", events_pb2.ArtifactKind)):
        if getattr(message, name) not in enum.values():
            violations.append(FieldViolation(f"filter.{name}", f"is {getattr(message, name)}, which is not known"))
    if violations:
        raise invalid_fields(violations)


def conditions(
    message: models_pb2.ModelFilter, facts: Any, own: Any | None, texts: Sequence[Any]
) -> list[ColumnElement[bool]]:
    """Returns what a checked filter asks of the rows.

    Args:
        message: The filter.
        facts: The facts of a version (of a model: its newest one).
        own: The facts of the model itself; None when versions are listed.
        texts: Columns that the query looks into.
    """
    found: list[ColumnElement[bool]] = []
    found += [
        facts.c[name] == getattr(message, name)
        for name in ("task", "framework", "architecture")
        if getattr(message, name)
    ]
    sources = [facts] if own is None else [facts, own]
    for name in ("license", "domain"):
        if wanted := getattr(message, name).lower():
            found.append(or_(*(func.lower(source.c[name]) == wanted for source in sources)))
    if message.query:
        found.append(or_(*(func.lower(text).contains(message.query.lower(), autoescape=True) for text in texts)))
    if message.size_class:
        least, too_many = size_bounds(message.size_class)
        found += [facts.c.parameters >= least, facts.c.parameters < too_many]
    if message.kind:
        found.append(facts.c.kind == events_pb2.ArtifactKind.Name(message.kind).removeprefix("ARTIFACT_KIND_"))
    wanted_labels = [(True, tag, "") for tag in message.tags]
    wanted_labels += [(False, key, value) for key, value in message.metadata.items()]
    for is_tag, label, value in wanted_labels:
        found.append(or_(*(_has_label(source, is_tag, label, value) for source in sources)))
    return found


def _has_label(facts: Any, is_tag: bool, label: str, value: str) -> ColumnElement[bool]:
    same = [MODEL_LABELS.c[name] == facts.c[name] for name in ("project", "model", "version")]
    is_wanted = [MODEL_LABELS.c.is_tag.is_(is_tag), MODEL_LABELS.c.label == label]
    if value:
        is_wanted.append(MODEL_LABELS.c.value == value)
    return exists().where(*same, *is_wanted)


def metric_value(metrics: Any, order: Order) -> ColumnElement[float]:
    """Returns the expression of a metric in which entries without it come last."""
    return func.coalesce(metrics.c.value, -_LAST if order.is_descending else _LAST)


def beyond(key: ColumnElement[Any], tie: ColumnElement[Any], order: Order, after: str | None) -> list[Any]:
    """Returns what keeps the rows after the last one of the page before.

    Args:
        key: What the list is ordered by.
        tie: What tells equal keys apart; ascending.
        order: The order.
        after: `page.after`.

    Raises:
        ServiceError: `INVALID_PAGE_TOKEN`.
    """
    if after is None:
        return []
    try:
        value, last = json.loads(after)
    except ValueError:
        value, last = None, None
    if type(value) not in (int, float, str) or type(last) not in (int, str):
        raise ServiceError(
            Reason.INVALID_PAGE_TOKEN, "page_token was not given by this method for this list; start again without one"
        )
    farther = key < value if order.is_descending else key > value
    return [or_(farther, and_(key == value, tie > last))]


def position(key: Any, tie: int | str) -> str:
    """Returns what `beyond` reads: the place of an entry in the list."""
    is_number = isinstance(key, int | float) and math.isfinite(key)
    return json.dumps([key if is_number else str(key), tie])
