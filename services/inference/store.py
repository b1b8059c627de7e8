"""Deployments in the service's database; knows no grpc."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.grpckit.database import Database, PostgresAddress
from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.pages import Page, cut
from services.inference.deployments import Deployment, DeploymentState, Failure, Layer
from tuneforge.manifest import Manifest
from tuneforge.names import DeploymentName
from tuneforge.signatures import Signature

SCHEMA_HEAD = "0002"
MIGRATIONS = Path(__file__).parent / "migrations"

_DEPLOYMENTS = sa.Table(
    "deployments",
    sa.MetaData(),
    sa.Column("project", sa.String(63), primary_key=True),
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("model", sa.String),
    sa.Column("layers", sa.String),
    sa.Column("state", sa.String(16)),
    sa.Column("template_sha256", sa.String(64)),
    sa.Column("failure", sa.String),
    sa.Column("create_time_us", sa.BigInteger),
    sa.Column("creator", sa.String),
)


def open_database(folder: Path, postgres: PostgresAddress | None = None) -> Database:
    """Returns the service's database, not yet opened: in its data folder, or on a server."""
    return Database(
        folder / "inference.sqlite",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        service="inference",
        postgres=postgres,
    )


def insert(connection: sa.Connection, deployment: Deployment) -> None:
    """Adds a deployment.

    Raises:
        ServiceError: `ALREADY_EXISTS`.
    """
    if find(connection, deployment.name) is not None:
        raise ServiceError(
            Reason.ALREADY_EXISTS,
            f"there is a deployment {deployment.name} already",
            metadata={"name": str(deployment.name)},
        )
    connection.execute(sa.insert(_DEPLOYMENTS).values(_row(deployment)))


def find(connection: sa.Connection, name: DeploymentName) -> Deployment | None:
    """Returns a deployment, None where there is none."""
    found = connection.execute(sa.select(_DEPLOYMENTS).where(*_is(name))).one_or_none()
    return None if found is None else _deployment(found)


def update(connection: sa.Connection, deployment: Deployment) -> None:
    """Writes a deployment's state; nothing happens when it was deleted meanwhile."""
    row = _row(deployment)
    values = {column: row[column] for column in ("state", "template_sha256", "failure")}
    connection.execute(sa.update(_DEPLOYMENTS).where(*_is(deployment.name)).values(values))


def delete(connection: sa.Connection, name: DeploymentName) -> None:
    """Removes a deployment.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    if connection.execute(sa.delete(_DEPLOYMENTS).where(*_is(name))).rowcount == 0:
        raise not_found("deployment", name)


def every_as_loading(connection: sa.Connection) -> list[Deployment]:
    """Sets every deployment back to LOADING and returns all of them, of all projects, oldest first."""
    connection.execute(sa.update(_DEPLOYMENTS).values(state=str(DeploymentState.LOADING), failure=None))
    rows = connection.execute(sa.select(_DEPLOYMENTS).order_by(_DEPLOYMENTS.c.create_time_us))
    return [_deployment(row) for row in rows]


def held_versions(connection: sa.Connection) -> frozenset[tuple[str, str]]:
    """Returns pairs of a deployment and the version on top of it, by name; what lies below that one is held by it."""
    rows = connection.execute(sa.select(_DEPLOYMENTS.c.project, _DEPLOYMENTS.c.id, _DEPLOYMENTS.c.layers))
    return frozenset((str(DeploymentName(row.project, row.id)), json.loads(row.layers)[-1]["version"]) for row in rows)


def page(connection: sa.Connection, project: str, page: Page) -> tuple[list[Deployment], str]:
    """Returns a project's deployments by id, and the token of the next page."""
    query = (
        sa.select(_DEPLOYMENTS)
        .where(_DEPLOYMENTS.c.project == project, _DEPLOYMENTS.c.id > (page.after or ""))
        .order_by(_DEPLOYMENTS.c.id)
        .limit(page.size + 1)
    )
    rows, token = cut(connection.execute(query).all(), page, lambda row: str(row.id))
    return [_deployment(row) for row in rows], token


def _is(name: DeploymentName) -> Sequence[sa.ColumnElement[bool]]:
    return _DEPLOYMENTS.c.project == name.project, _DEPLOYMENTS.c.id == name.deployment


def _row(deployment: Deployment) -> dict[str, Any]:
    layers = [
        {
            "version": layer.version,
            "kind": layer.kind,
            "manifest": layer.manifest.to_json(),
            "signature": layer.signature and [layer.signature.key_id, layer.signature.value.hex()],
        }
        for layer in deployment.layers
    ]
    failure = deployment.failure
    return {
        "project": deployment.name.project,
        "id": deployment.name.deployment,
        "model": deployment.model,
        "layers": json.dumps(layers),
        "state": str(deployment.state),
        "template_sha256": deployment.template_sha256,
        "failure": None
        if failure is None
        else json.dumps(
            {field.name: getattr(failure, field.name) for field in dataclasses.fields(failure)}
            | {"metadata": dict(failure.metadata)}
        ),
        "create_time_us": deployment.create_time_us,
        "creator": deployment.creator,
    }


def _deployment(row: Any) -> Deployment:
    layers = tuple(
        Layer(
            version=layer["version"],
            kind=layer["kind"],
            manifest=Manifest.from_json(layer["manifest"]),
            # Deployments made before signing have none; the registry is asked for it then.
            signature=Signature(signed[0], bytes.fromhex(signed[1])) if (signed := layer.get("signature")) else None,
        )
        for layer in json.loads(row.layers)
    )
    return Deployment(
        name=DeploymentName(row.project, row.id),
        model=row.model,
        layers=layers,
        state=DeploymentState(row.state),
        template_sha256=row.template_sha256,
        failure=Failure(**json.loads(row.failure)) if row.failure else None,
        create_time_us=row.create_time_us,
        creator=row.creator,
    )
