"""The rows of versions of models. See `collections.py` for the manners of such functions."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, insert, select

from services.grpckit.errors import not_found
from services.registry.collections import Collection, create_collection, find_collection, get_collection, next_version
from services.registry.models.fact_store import FACT_COLUMNS, add_facts, add_metrics, facts_of
from services.registry.models.report_store import add_report
from services.registry.models.resources import ArtifactKind, ModelContent, ModelVersion, Origin
from services.registry.reporters import SERVICE
from services.registry.tables import MODEL_FACTS, MODEL_VERSIONS
from tuneforge.names import LATEST, ModelName, ModelVersionName


def find_import(connection: Connection, name: ModelName, import_digest: str) -> ModelVersion | None:
    """Returns the version of a model that came in with these files (on this base); None when they are new to it.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, name)
    return _one(connection, name, _OLDEST_WITH["import_digest"], import_digest)


def find_model_version(connection: Connection, name: ModelName, digest: str) -> ModelVersion | None:
    """Returns the oldest version of a model with these files; None when they are new to the model.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    get_collection(connection, name)
    return _one(connection, name, _OLDEST_WITH["digest"], digest)


def find_publication(connection: Connection, job: str) -> ModelVersion | None:
    """Returns the version that a job published; None when it has not."""
    row = connection.execute(with_facts().where(MODEL_VERSIONS.c.job == job)).one_or_none()
    return None if row is None else version_of_row(row)


def _add_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    number = next_version(connection, name)
    origin = content.origin
    connection.execute(
        insert(MODEL_VERSIONS).values(
            project=name.project,
            model=name.model,
            version=number,
            digest=content.digest,
            kind=content.kind.value,
            size_bytes=content.size_bytes,
            import_digest=content.import_digest or None,
            job=origin.job or None,
            base_version=origin.base_version or None,
            dataset_version=origin.dataset_version or None,
            record=content.record,
            tensors=content.tensors,
            create_time_us=time_us,
            creator=creator,
        )
    )
    add_facts(connection, name, number, content.facts, time_us=time_us)
    add_metrics(connection, name, number, content.metrics)
    if content.report is not None:
        # It is the run's own, and services alone publish.
        own = name.version(number)
        add_report(connection, own, content.report, creator=creator, roles=(SERVICE,), time_us=time_us)
    return ModelVersion(name=name.version(number), content=content, create_time_us=time_us, creator=creator)


def import_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    """Adds an imported version, or returns the oldest one with the same content.

    Raises:
        ServiceError: `NOT_FOUND`: there is no such model.
    """
    found = find_import(connection, name, content.import_digest)
    if found is None and content.kind is ArtifactKind.MODEL:  # what a job made of the same bytes is the same model
        found = find_model_version(connection, name, content.digest)
    return found or _add_model_version(connection, name, content, creator=creator, time_us=time_us)


def publish_model_version(
    connection: Connection, name: ModelName, content: ModelContent, *, creator: str, time_us: int
) -> ModelVersion:
    """Adds the version that a job made, and the model when it is missing; returns the one that the job has made before.

    The caller compares: what is returned may be of another model or have other content.
    """
    found = find_publication(connection, content.origin.job)
    if found is not None:
        return found
    if find_collection(connection, name) is None:
        create_collection(connection, Collection(name=name, description="", create_time_us=time_us, creator=creator))
    return _add_model_version(connection, name, content, creator=creator, time_us=time_us)


def get_model_version(connection: Connection, name: ModelVersionName) -> ModelVersion:
    """Returns a version, the newest one for `LATEST`.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    statement = _NEWEST if name.version == LATEST else _OLDEST_WITH["version"]
    found = _one(connection, name.parent, statement, name.version)
    if found is None:
        raise not_found("model version", name)
    return found


def with_facts(columns: Iterable[Any] = MODEL_VERSIONS.c) -> Any:
    """Returns the query for columns of versions, and the facts of each beside them."""
    same = (MODEL_FACTS.c[column] == MODEL_VERSIONS.c[column] for column in ("project", "model", "version"))
    facts = [MODEL_FACTS.c[column].label(f"fact_{column}") for column in FACT_COLUMNS]
    return select(*columns, *facts).select_from(MODEL_VERSIONS.outerjoin(MODEL_FACTS, and_(*same)))


def version_of_row(row: Row[Any]) -> ModelVersion:
    """Returns the version in a row of `with_facts`."""
    origin = Origin(job=row.job or "", base_version=row.base_version or "", dataset_version=row.dataset_version or "")
    return ModelVersion(
        name=ModelVersionName(row.project, row.model, row.version),
        content=ModelContent(
            kind=ArtifactKind(row.kind),
            digest=row.digest,
            size_bytes=row.size_bytes,
            origin=origin,
            record=row.record,
            tensors=getattr(row, "tensors", b""),
            facts=facts_of(row, "fact_"),
            import_digest=row.import_digest or "",
        ),
        create_time_us=row.create_time_us,
        creator=row.creator,
    )


_LIVE = with_facts().where(
    MODEL_VERSIONS.c.project == bindparam("of_project"),
    MODEL_VERSIONS.c.model == bindparam("of_model"),
    MODEL_VERSIONS.c.delete_time_us.is_(None),
)
# Built once: to build a query costs more than to run it.
_NEWEST = _LIVE.order_by(MODEL_VERSIONS.c.version.desc()).limit(1)
_OLDEST_WITH = {
    column: _LIVE.where(MODEL_VERSIONS.c[column] == bindparam("value")).order_by(MODEL_VERSIONS.c.version).limit(1)
    for column in ("version", "digest", "import_digest")
}


def _one(
    connection: Connection, name: ModelName, statement: Any, value: str | int | None = None
) -> ModelVersion | None:
    values = {"of_project": name.project, "of_model": name.model, "value": value}
    row = connection.execute(statement, values).one_or_none()
    return None if row is None else version_of_row(row)
