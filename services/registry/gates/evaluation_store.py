"""The rows of evaluations, written once each; see `collections.py` for the manners of such functions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, literal, select, tuple_, update

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import Page
from services.registry.gates.rules import Evaluated
from services.registry.gates.scores import Scores
from services.registry.models.store import get_model_version
from services.registry.reporters import is_by, kept
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
    roles: tuple[str, ...]
    """Of the creator when it was recorded."""


def add_evaluation(connection: Connection, row: EvaluationRow, scores: bytes) -> EvaluationRow:
    """Keeps an evaluation, or returns the one with the same content that its creator recorded before.

    Raises:
        ServiceError: `ALREADY_EXISTS`: the creator recorded other scores.
    """
    found = find_evaluation(connection, row.version, row.dataset_digest, row.metric, row.creator)
    if found is not None:
        if found.evaluated.digest != row.evaluated.digest:
            raise ServiceError(
                Reason.ALREADY_EXISTS,
                f"{row.creator} recorded {row.metric!r} on {row.dataset} for {row.version} with other scores, which "
                "stay; a metric that is computed in another way has another name",
                metadata={"name": str(row.version), "metric": row.metric, "digest": found.evaluated.digest},
            )
        return _with_roles(connection, found, row.roles)
    row = replace(row, create_time_us=max(row.create_time_us, _newest_us(connection, row) + 1))
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
            roles=kept(row.roles),
        )
    )
    return row


def _newest_us(connection: Connection, row: EvaluationRow) -> int:
    """Returns when the newest of all reporters was recorded: the first stays the first when the clock is put back."""
    key = _is_evaluation(row.version, row.dataset_digest, row.metric)
    return connection.execute(select(func.max(EVALUATIONS.c.create_time_us)).where(*key)).scalar_one() or 0


def _with_roles(connection: Connection, found: EvaluationRow, roles: tuple[str, ...]) -> EvaluationRow:
    """Adds roles that the creator has by now and says the same with."""
    both = tuple(sorted({*found.roles, *roles}))
    if both == found.roles:
        return found
    key = _is_evaluation(found.version, found.dataset_digest, found.metric)
    change = update(EVALUATIONS).where(*key, EVALUATIONS.c.creator == found.creator)
    connection.execute(change.values(roles=kept(both)))
    return replace(found, roles=both)


def find_evaluation(
    connection: Connection, version: ModelVersionName, dataset_digest: str, metric: str, creator: str
) -> EvaluationRow | None:
    """Returns one reporter's evaluation without its scores; None when it was not recorded."""
    key = _is_evaluation(version, dataset_digest, metric)
    row = connection.execute(select(*_FIGURES).where(*key, EVALUATIONS.c.creator == creator)).one_or_none()
    return None if row is None else _evaluation(row)


def counting_evaluation(
    connection: Connection, version: ModelVersionName, dataset_digest: str, metric: str, by: Sequence[str]
) -> EvaluationRow | None:
    """Returns the first evaluation by one who counts (see `reporters.is_by`), without its scores.

    The first, so that nobody replaces a score that was found wanting by a nicer one.
    """
    key = _is_evaluation(version, dataset_digest, metric)
    statement = select(*_FIGURES).where(*key, is_by(EVALUATIONS, by))
    order = EVALUATIONS.c.create_time_us, EVALUATIONS.c.creator
    row = connection.execute(statement.order_by(*order).limit(1)).one_or_none()
    return None if row is None else _evaluation(row)


def scores_of(connection: Connection, version: ModelVersionName, digest: str) -> Scores:
    """Returns the scores of a version with a digest, which are there."""
    statement = select(EVALUATIONS.c.scores).where(*_is_version(version), EVALUATIONS.c.digest == digest).limit(1)
    return Scores.from_bytes(bytes(connection.execute(statement).scalar_one()))


def list_evaluations(connection: Connection, version: ModelVersionName, page: Page) -> list[EvaluationRow]:
    """Returns a page's evaluations by data set, metric and creator, and one more when there are more.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such version.
    """
    get_model_version(connection, version)
    statement = select(*_FIGURES).where(*_is_version(version))
    if page.after is not None:
        statement = statement.where(tuple_(*_PLACE) > tuple_(*map(literal, page.after.split("\n", 2))))
    rows = connection.execute(statement.order_by(*_PLACE).limit(page.size + 1))
    return [_evaluation(row) for row in rows]


def place_of(row: EvaluationRow) -> str:
    """Returns where a list goes on after a row; no part of it has a line break."""
    return f"{row.dataset_digest}\n{row.metric}\n{row.creator}"


_PLACE = EVALUATIONS.c.dataset_digest, EVALUATIONS.c.metric, EVALUATIONS.c.creator
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
        roles=tuple(row.roles.split()),
    )
