"""Lists of models and of versions, filtered and in order.

Filter, order and page are decided over narrow rows alone; what a page shows of its versions is in `messages.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, func, select

from services.grpckit.pages import Page
from services.registry.collections import Collection, get_collection
from services.registry.models import filters
from services.registry.models.fact_store import FACT_COLUMNS, OWN, facts_of
from services.registry.models.facts import Facts
from services.registry.models.filters import Order
from services.registry.tables import MODEL_FACTS, MODEL_METRICS, MODELS
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model with what a list shows of it."""

    model: Collection
    own: Facts
    newest: Facts
    """Of its newest version; empty when there is none."""
    place: str = ""
    """Where it stands in its list, for the next page."""


class ListedVersion(NamedTuple):
    """A version on a page."""

    number: int
    revision: int
    """Of its facts."""
    sort_key: Any

    @property
    def place(self) -> str:
        """Where it stands in its list, for the next page."""
        return filters.position(self.sort_key, -self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list request asks for, checked."""

    filter: models_pb2.ModelFilter
    order: Order
    page: Page


def list_models(connection: Connection, project: str, wanted: Wanted) -> list[ListedModel]:
    """Returns a page's models, and one more when there are more."""
    own, newest, metrics = MODEL_FACTS.alias("own"), MODEL_FACTS.alias("newest"), MODEL_METRICS.alias("metrics")
    order = wanted.order
    keys: dict[str, Any] = {
        "name": MODELS.c.id,
        "date": func.coalesce(newest.c.create_time_us, MODELS.c.create_time_us),
        "size": func.coalesce(newest.c.parameters, 0),
        "metric": filters.metric_value(metrics, order),
    }
    key = keys[order.key].label("sort_key")
    joined = MODELS.outerjoin(own, _same(own, OWN)).outerjoin(newest, _same(newest, MODELS.c.latest))
    if order.key == "metric":
        is_metric = and_(_same(metrics, MODELS.c.latest), metrics.c.name == order.metric)
        joined = joined.outerjoin(metrics, is_metric)
    statement = (
        select(MODELS, key, *_labelled(own, "own_"), *_labelled(newest, "newest_"))
        .select_from(joined)
        .where(
            MODELS.c.project == project,
            MODELS.c.delete_time_us.is_(None),
            *filters.conditions(wanted.filter, newest, own, (MODELS.c.id, MODELS.c.description)),
            *filters.beyond(keys[order.key], MODELS.c.id, order, wanted.page.after),
        )
        .order_by(key.desc() if order.is_descending else key.asc(), MODELS.c.id)
        .limit(wanted.page.size + 1)
    )
    return [
        ListedModel(
            model=Collection(
                name=ModelName(row.project, row.id),
                description=row.description,
                create_time_us=row.create_time_us,
                creator=row.creator,
                latest=row.latest,
            ),
            own=facts_of(row, "own_"),
            newest=facts_of(row, "newest_"),
            place=filters.position(row.sort_key, row.id),
        )
        for row in connection.execute(statement)
    ]


def get_listed_model(connection: Connection, name: ModelName) -> ListedModel:
    """Returns one model as a list shows it.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    model = get_collection(connection, name)
    rows = connection.execute(
        select(MODEL_FACTS).where(
            MODEL_FACTS.c.project == name.project,
            MODEL_FACTS.c.model == name.model,
            MODEL_FACTS.c.version.in_([OWN, model.latest]),
        )
    )
    facts = {row.version: facts_of(row) for row in rows}
    newest = facts.get(model.latest, Facts()) if model.latest else Facts()
    return ListedModel(model=model, own=facts.get(OWN, Facts()), newest=newest)


def list_versions(connection: Connection, name: ModelName, wanted: Wanted) -> list[ListedVersion]:
    """Returns which versions a page has, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, name)
    chosen = wanted.filter.SerializeToString(deterministic=True)
    values = {"of_project": name.project, "of_model": name.model, "most": wanted.page.size + 1}
    rows = connection.execute(_versions_on_page(chosen, wanted.order, wanted.page.after), values)
    return [ListedVersion(*row) for row in rows]


@lru_cache(maxsize=256)  # building it costs more than running it
def _versions_on_page(chosen: bytes, order: Order, after: str | None) -> Any:
    """Returns the query for a page's versions: which filter, serialised, in which order, after which place."""
    metrics, number = MODEL_METRICS.alias("metrics"), MODEL_FACTS.c.version
    keys: dict[str, Any] = {
        "name": number,
        "date": number,  # numbers are given in order of time, and there is an index for them
        "size": MODEL_FACTS.c.parameters,
        "metric": filters.metric_value(metrics, order),
    }
    joined: Any = MODEL_FACTS
    if order.key == "metric":
        same = [metrics.c[column] == MODEL_FACTS.c[column] for column in ("project", "model", "version")]
        joined = MODEL_FACTS.outerjoin(metrics, and_(*same, metrics.c.name == order.metric))
    key = keys[order.key].label("sort_key")
    order_by = [key.desc() if order.is_descending else key.asc()]
    if order.key not in ("name", "date"):
        order_by.append(-number)  # the newest of equals first
    texts = (MODEL_FACTS.c.model, MODEL_FACTS.c.description)
    return (
        select(number, MODEL_FACTS.c.revision, key)
        .select_from(joined)
        .where(
            MODEL_FACTS.c.project == bindparam("of_project"),
            MODEL_FACTS.c.model == bindparam("of_model"),
            number != OWN,
            *filters.conditions(models_pb2.ModelFilter.FromString(chosen), MODEL_FACTS, None, texts),
            *filters.beyond(keys[order.key], -number, order, after),
        )
        .order_by(*order_by)
        .limit(bindparam("most"))
    )


def _same(table: Any, version: Any) -> Any:
    return and_(table.c.project == MODELS.c.project, table.c.model == MODELS.c.id, table.c.version == version)


def _labelled(table: Any, prefix: str) -> list[Any]:
    return [table.c[column].label(prefix + column) for column in FACT_COLUMNS]
