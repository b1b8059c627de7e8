"""The rows of evaluations, written once each; see `collections.py` for the manners of such functions."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import Page
from services.registry.gates.rules import Evaluated
from services.registry.gates.scores import Scores
from services.registry.models.store import get_model_version
from services.registry.tables import EVALUATIONS
from tuneforge.names import ModelVersionName


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One evaluation without its scores."""

    version: ModelVersionName
    dataset: str
    dataset_digest: str
    metric: str
    evaluated: Evaluated
    slices: tuple[str, ...]
    create_time_us: int
    creator: str


def add_evaluation(connection: Connection, row: EvaluationRow, scores: bytes) -> EvaluationRow:
    """Keeps an evaluation, or returns the one that is there with the same content.

    Raises:
        ServiceError: `ALREADY_EXISTS`: there is one with other scores.
    """
    found = find_evaluation(connection, row.version, row.dataset_digest, row.metric)
    if found is not None:
        if found.evaluated.digest != row.evaluated.digest:
            raise ServiceError(
                Reason.ALREADY_EXISTS,
                f"{row.metric!r} on {row.dataset} is recorded for {row.version} with other scores, which stay; "
                "a metric that is computed in another way has another name",
                metadata={"name": str(row.version), "metric": row.metric, "digest": found.evaluated.digest},
            )
        return found
    connection.execute(
        insert(EVALUATIONS).values(
            project=row.version.project,
            model=row.version.model,
            version=row.version.version,
            dataset_digest=row.dataset_digest,
            metric=row.metric,
            dataset=row.dataset,
            digest=row.evaluated.digest,
            rows_digest=row.evaluated.rows_digest,
            rows=row.evaluated.rows,
            mean=row.evaluated.mean,
            slices=json.dumps(row.slices),
            scores=scores,
            create_time_us=row.create_time_us,
            creator=row.creator,
        )
    )
    return row


def find_evaluation(
    connection: Connection, version: ModelVersionName, dataset_digest: str, metric: str
) -> EvaluationRow | None:
    """Returns an evaluation without its scores; None when it was not recorded."""
    row = connection.execute(select(*_FIGURES).where(*_is_evaluation(version, dataset_digest, metric))).one_or_none()
    return None if row is None else _evaluation(row)


def scores_of(connection: Connection, version: ModelVersionName, dataset_digest: str, metric: str) -> Scores:
    """Returns the scores of an evaluation that is there."""
    statement = select(EVALUATIONS.c.scores).where(*_is_evaluation(version, dataset_digest, metric))
    return Scores.from_bytes(bytes(connection.execute(statement).scalar_one()))


def list_evaluations(connection: Connection, version: ModelVersionName, page: Page) -> list[EvaluationRow]:
    """Returns a page's evaluations by data set and metric, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version.
    """
    get_model_version(connection, version)
    table = EVALUATIONS.c
    statement = select(*_FIGURES).where(*_is_version(version))
    if page.after is not None:
        digest, _, metric = page.after.partition(" ")
        statement = statement.where(
            (table.dataset_digest > digest) | ((table.dataset_digest == digest) & (table.metric > metric))
        )
    rows = connection.execute(statement.order_by(table.dataset_digest, table.metric).limit(page.size + 1))
    return [_evaluation(row) for row in rows]


_FIGURES = [column for column in EVALUATIONS.c if column.name != "scores"]


def _is_version(version: ModelVersionName) -> list[Any]:
    table = EVALUATIONS.c
    return [table.project == version.project, table.model == version.model, table.version == version.version]


def _is_evaluation(version: ModelVersionName, dataset_digest: str, metric: str) -> list[Any]:
    table = EVALUATIONS.c
    return [*_is_version(version), table.dataset_digest == dataset_digest, table.metric == metric]


def _evaluation(row: Row[Any]) -> EvaluationRow:
    return EvaluationRow(
        version=ModelVersionName(row.project, row.model, row.version),
        dataset=row.dataset,
        dataset_digest=row.dataset_digest,
        metric=row.metric,
        evaluated=Evaluated(digest=row.digest, rows_digest=row.rows_digest, rows=row.rows, mean=row.mean),
        slices=tuple(json.loads(row.slices)),
        create_time_us=row.create_time_us,
        creator=row.creator,
    )
