"""The registry's database alone, with versions that have no files: for tests of what is kept about them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from services.grpckit.database import Database
from services.registry.models.resources import ArtifactKind, ModelContent, Origin
from services.registry.models.store import publish_model_version
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from tests.support.postgres import postgres_of
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2


@contextmanager
def registry_rows(folder: Path) -> Iterator[Database]:
    """Gives the open database of a registry that does not run; an empty one where there was none."""
    database = Database(
        folder / "registry.sqlite",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        postgres=postgres_of("registry", folder),
    )
    database.open()
    try:
        yield database
    finally:
        database.close()


def add_versions(
    connection: Connection, model: ModelName, count: int, *, metrics: tuple[dict[str, float], ...] = ()
) -> None:
    """Adds versions as if jobs had published them; the model is made when it is missing.

    Args:
        connection: A write transaction.
        model: The model.
        count: How many.
        metrics: Figures of the first ones; the others have none.
    """
    for number in range(1, count + 1):
        name = f"{model} {number}"
        record = models_pb2.ModelVersion(metrics=metrics[number - 1] if number <= len(metrics) else {})
        content = ModelContent(
            kind=ArtifactKind.MODEL,
            digest=hashlib.sha256(name.encode()).hexdigest(),
            size_bytes=1,
            origin=Origin(job=f"projects/{model.project}/jobs/{model.model}-{number}"),
            record=record.SerializeToString(),
            tensors=b"",
        )
        publish_model_version(connection, model, content, creator="test", time_us=1)
