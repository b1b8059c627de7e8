"""Versions that were made before their facts were kept get them from their records, in place."""

from pathlib import Path

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from services.registry.models.fact_store import get_facts
from services.registry.tables import MIGRATIONS, MODEL_METRICS
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2


def upgrade_to(connection: Connection, last: str, after: str | None) -> None:
    """Applies the revisions after one up to another."""
    script = ScriptDirectory(str(MIGRATIONS))
    revisions = list(script.iterate_revisions(last, after or "base"))
    context = MigrationContext.configure(connection)
    for revision in reversed(revisions):
        with Operations.context(context):
            revision.module.upgrade()


def insert_version(connection: Connection) -> None:
    """Adds a model with one version as the first release wrote them."""
    record = models_pb2.ModelVersion(metrics={"loss": 0.5, "odd": float("inf")})
    record.architecture.class_name = "LlamaForCausalLM"
    record.architecture.parameters = 135_000_000
    connection.execute(
        sa.text("INSERT INTO models (project, id, description, create_time_us, creator, latest) VALUES "
                "('default', 'm', '', 5, 'me', 1)")
    )  # fmt: skip
    connection.execute(
        sa.text(
            "INSERT INTO model_versions (project, model, version, digest, kind, size_bytes, import_digest, record, "
            "tensors, create_time_us, creator) VALUES ('default', 'm', 1, :digest, 'MODEL', 7, :digest, :record, "
            ":record, 6, 'me')"
        ),
        {"digest": "0" * 64, "record": record.SerializeToString()},
    )


def test_facts_are_filled_in(tmp_path: Path) -> None:
    """Task, architecture, weights and finite figures come from the record; nothing else is invented."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    with engine.begin() as connection:
        upgrade_to(connection, "0002", None)
        insert_version(connection)
        upgrade_to(connection, "0003", "0002")
        facts = get_facts(connection, ModelName("default", "m"), 1)
        figures = connection.execute(sa.select(MODEL_METRICS.c.name, MODEL_METRICS.c.value)).all()
    assert (facts.task, facts.architecture, facts.parameters) == ("text-generation", "LlamaForCausalLM", 135_000_000)
    assert (facts.kind, facts.size_bytes, facts.revision, facts.tags) == ("MODEL", 7, 1, ())
    assert [tuple(row) for row in figures] == [("loss", 0.5)]
