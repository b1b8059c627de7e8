"""The rows of facts, labels and figures. See `collections.py` for the manners of such functions."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from services.registry.models.facts import Facts
from services.registry.tables import MODEL_FACTS, MODEL_LABELS, MODEL_METRICS
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2

OWN = 0
"""Version number under which a model's own facts stand."""
_LONGEST_METRIC = 200


def add_facts(connection: Connection, name: ModelName, version: int, facts: Facts, *, time_us: int) -> None:
    """Adds the facts of a new version, or the first ones of a model itself (`OWN`)."""
    row = _values(facts) | {"create_time_us": time_us}
    connection.execute(insert(MODEL_FACTS).values(project=name.project, model=name.model, version=version, **row))
    _add_labels(connection, name, version, facts)


def change_facts(connection: Connection, name: ModelName, version: int, facts: Facts) -> None:
    """Overwrites facts that are there."""
    connection.execute(
        update(MODEL_FACTS)
        .where(
            MODEL_FACTS.c.project == name.project,
            MODEL_FACTS.c.model == name.model,
            MODEL_FACTS.c.version == version,
        )
        .values(**_values(facts))
    )
    connection.execute(
        delete(MODEL_LABELS).where(
            MODEL_LABELS.c.project == name.project,
            MODEL_LABELS.c.model == name.model,
            MODEL_LABELS.c.version == version,
        )
    )
    _add_labels(connection, name, version, facts)


def add_metrics(connection: Connection, name: ModelName, version: int, metrics: Mapping[str, float]) -> None:
    """Adds the figures of a version; those that are no finite numbers stand in its record only."""
    key = {"project": name.project, "model": name.model, "version": version}
    rows = [
        {**key, "name": metric, "value": value}
        for metric, value in metrics.items()
        if math.isfinite(value) and 0 < len(metric) <= _LONGEST_METRIC
    ]
    if rows:
        connection.execute(insert(MODEL_METRICS), rows)


def get_facts(connection: Connection, name: ModelName, version: int = OWN) -> Facts:
    """Returns the facts of a version, or of the model itself; empty ones when none were ever set."""
    row = connection.execute(
        select(MODEL_FACTS).where(
            MODEL_FACTS.c.project == name.project,
            MODEL_FACTS.c.model == name.model,
            MODEL_FACTS.c.version == version,
        )
    ).one_or_none()
    return Facts() if row is None else facts_of(row)


def facts_of(row: Row[Any], prefix: str = "") -> Facts:
    """Returns the facts in a row whose columns have a prefix; empty ones where the row has none."""
    columns = {column: getattr(row, prefix + column) for column in _COLUMNS}
    if columns["revision"] is None:
        return Facts()
    labels = models_pb2.ModelVersion.FromString(columns.pop("labels"))
    return Facts(**columns, tags=tuple(labels.tags), metadata=dict(labels.metadata))


def _values(facts: Facts) -> dict[str, Any]:
    labels = models_pb2.ModelVersion(tags=facts.tags, metadata=facts.metadata)
    row = {column: getattr(facts, column) for column in _COLUMNS if column != "labels"}
    return {**row, "labels": labels.SerializeToString(deterministic=True)}


def _add_labels(connection: Connection, name: ModelName, version: int, facts: Facts) -> None:
    key = {"project": name.project, "model": name.model, "version": version}
    rows = [{**key, "is_tag": True, "label": tag, "value": ""} for tag in facts.tags]
    rows += [{**key, "is_tag": False, "label": label, "value": value} for label, value in facts.metadata.items()]
    if rows:
        connection.execute(insert(MODEL_LABELS), rows)


_COLUMNS = (
    "task", "framework", "architecture", "kind", "parameters", "size_bytes", "license", "domain", "description",
    "labels", "revision", "update_time_us",
)  # fmt: skip
"""Columns of a row of facts that are fields of `Facts`; tags and metadata are both in `labels`."""
FACT_COLUMNS = _COLUMNS
