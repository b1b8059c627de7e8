"""Puts many versions into a registry's database, as publications of jobs would have; no server runs meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from services.grpckit.database import Database, PostgresAddress
from services.registry.aliases.resources import AliasMove
from services.registry.aliases.store import move_alias
from services.registry.blobs.store import Stored, add_blob
from services.registry.lineage.sealing import seal_model_version
from services.registry.models.facts import Facts
from services.registry.models.resources import ArtifactKind, ModelContent, Origin
from services.registry.models.store import publish_model_version
from services.registry.signing.keys import KEY_FILE, Signer
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from services.registry.wire import manifest_to_proto
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import ModelName
from tuneforge.v1 import models_pb2

PROJECT = "default"
ALIAS = "production"
FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "metadata.json")
VERSIONS_PER_COMMIT = 250
_TIME_US = 1_750_000_000_000_000


def model_id(number: int) -> str:
    """Returns the id of a model; numbers begin with 0."""
    return f"model-{number:04}"


def fill_registry(data: Path, models: int, versions: int, postgres: PostgresAddress | None = None) -> None:
    """Makes the database of a registry with `models` models of `versions` versions, the middle one in production.

    Args:
        data: The registry's data folder.
        models: How many models.
        versions: Versions of each.
        postgres: The database on a server; None: SQLite in the folder.
    """
    database = Database(
        data / "registry.sqlite", migrations=MIGRATIONS, schema_head=SCHEMA_HEAD, service="registry", postgres=postgres
    )
    signer = Signer(data / KEY_FILE, may_make=True)
    database.open()
    try:
        todo = [(model, number) for model in range(models) for number in range(1, versions + 1)]
        for start in range(0, len(todo), VERSIONS_PER_COMMIT):
            database.write_sync(partial(_publish_all, signer=signer, todo=todo[start : start + VERSIONS_PER_COMMIT]))
        database.write_sync(partial(_promote_all, models=models, version=max(1, versions // 2)))
    finally:
        database.close()


def _publish_all(connection: Connection, signer: Signer, todo: Sequence[tuple[int, int]]) -> None:
    for model, number in todo:
        _publish(connection, signer, model, number)


def _publish(connection: Connection, signer: Signer, model: int, number: int) -> None:
    job = f"projects/{PROJECT}/jobs/{model_id(model)}-{number}"
    files = []
    for path in FILES:
        sha256 = hashlib.sha256(f"{job} {path}".encode()).hexdigest()
        add_blob(connection, PROJECT, Stored(sha256=sha256, size_bytes=1000, place=sha256), time_us=_TIME_US)
        files.append(ManifestFile(path, sha256, 1000))
    manifest = Manifest.of(files)
    record = models_pb2.ModelVersion(
        manifest=manifest_to_proto(manifest),
        metrics={"loss": 1.0 / number, "eval_loss": 1.1 / number, "accuracy": 0.5},
        lineage=models_pb2.Lineage(job=job, attempt=1),
    )
    content = ModelContent(
        kind=ArtifactKind.ADAPTER,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        origin=Origin(job=job),
        record=record.SerializeToString(),
        tensors=b"",
        facts=Facts(tags=("support",), license="apache-2.0"),
        metrics=dict[str, float](record.metrics),
    )
    version = publish_model_version(
        connection, ModelName(PROJECT, model_id(model)), content, creator="local", time_us=_TIME_US
    )
    seal_model_version(connection, signer, version)


def _promote_all(connection: Connection, models: int, version: int) -> None:
    for model in range(models):
        name = ModelName(PROJECT, model_id(model)).alias(ALIAS)
        move = AliasMove(name=name, version=version, reason="it is better", actor="local")
        move_alias(connection, move, lambda: _TIME_US)
