"""Finds what a spec names at the registry: versions, aliases, data sets, and the layers below an adapter."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from services.grpckit.context import current_or_none
from services.grpckit.errors import FieldViolation, ServiceError, not_found
from services.scheduler.wire.inputs import DatasetFacts, ModelFacts
from tuneforge.data.learnable import shapes_of
from tuneforge.names import DatasetName, DatasetVersionName, InvalidName, parse_model_reference, project_of
from tuneforge.specs.spec import DataSource, Task

T = TypeVar("T")

DEEPEST = 14
"""Most adapters below a new one: each is merged at every load. The registry takes 15, and as many are served."""

_ABSENT = frozenset({"NOT_FOUND", "PERMISSION_DENIED", "INVALID_NAME", "INVALID_FIELD"})


class VersionSource(Protocol):
    """The part of the registry that this module needs."""

    async def model(self, name: str) -> ModelFacts:
        """Returns a version by version or alias."""

    async def dataset(self, name: str) -> DatasetFacts:
        """Returns a version of a data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedBase:
    """A base with everything below it."""

    layers: tuple[ModelFacts, ...]
    """Root first."""

    @property
    def top(self) -> ModelFacts:
        """The version that was named."""
        return self.layers[-1]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a name cannot be resolved; it becomes a violation of the field that held the name."""

    violation: FieldViolation


async def resolve_base(source: VersionSource, name: str, field: str) -> ResolvedBase | Problem:
    """Finds a base and the layers below it.

    Args:
        source: The registry.
        name: A version or an alias.
        field: Field of the request that holds the name.

    Raises:
        ServiceError: PEER_UNAVAILABLE; REVOKED; LINEAGE_DEPTH.
    """
    try:
        parse_model_reference(name)
    except InvalidName as error:
        return Problem(FieldViolation(field, f"is not a model: {error}"))
    if not _may_see(name):
        return Problem(FieldViolation(field, _model_missing(name, name, not_found("model version", name))))
    layers: list[ModelFacts] = []
    wanted, digest = name, None
    while True:
        found = await _absent(source.model(wanted))
        if isinstance(found, ServiceError):
            return Problem(FieldViolation(field, _model_missing(wanted, name, found)))
        if digest is not None and found.ref.digest != digest:
            return Problem(
                FieldViolation(field, f"is {name!r}: its layer {wanted} is not the one that it was trained on")
            )
        if found.taint:
            raise _revoked(found.ref.version, field, found.taint)
        layers.append(found)
        if not found.is_adapter:
            return ResolvedBase(layers=tuple(reversed(layers)))
        if len(layers) > DEEPEST:
            raise ServiceError(
                "LINEAGE_DEPTH",
                f"{field} is {name}, which stands on more than {DEEPEST} adapters, one on the other",
                metadata={"name": name, "limit": str(DEEPEST)},
            )
        if found.base is None:
            return Problem(FieldViolation(field, f"is {name!r}: the base below its adapter {wanted} is not known"))
        wanted, digest = found.base.version, found.base.digest


def _model_missing(wanted: str, name: str, error: ServiceError) -> str:
    if wanted == name:
        return f"is {name!r}: {error.message}; list the project's models and versions, or import the model first"
    return f"is {name!r}: its layer {wanted} is gone ({error.message})"


async def resolve_data(
    source: VersionSource, named: DataSource, field: str, *, task: Task | None = None, is_validation: bool = False
) -> DatasetFacts | Problem:
    """Finds a version of a data set; a data set without a version means its newest one.

    Args:
        source: The registry.
        named: What the spec names.
        field: Field of the request that names it.
        task: What is learned; decides which shapes of rows are taken. None: supervised fine-tuning.
        is_validation: Whether for validation; of a version that is divided, its rows for validation are then taken.

    Raises:
        ServiceError: PEER_UNAVAILABLE; REVOKED.
    """
    name = named.dataset or ""
    try:
        if "/versions/" in name:
            wanted = str(DatasetVersionName.parse(name, allow_latest=True))
        else:
            wanted = f"{DatasetName.parse(name)}/versions/latest"
    except InvalidName as error:
        return Problem(FieldViolation(field, f"is not a data set: {error}"))
    found = await _absent(source.dataset(wanted)) if _may_see(name) else not_found("data set version", wanted)
    if isinstance(found, ServiceError):
        cure = "list the project's data sets, or upload the rows first"
        return Problem(FieldViolation(field, f"is {name!r}: {found.message}; {cure}"))
    if found.revocation:
        raise _revoked(found.ref.version, field, found.revocation)
    rows = found.rows
    if is_validation and found.validation_rows is not None:
        rows = found.validation_rows
    if rows == 0:
        return Problem(FieldViolation(field, f"is {name!r}: it has no rows{' for validation' * is_validation}"))
    if found.shape and found.shape not in shapes_of(task):
        shapes = ", ".join(sorted(shapes_of(task)))
        sentence = f"its rows have the shape {found.shape}, which this task does not learn; give one of {shapes}"
        return Problem(FieldViolation(field, f"is {name!r}: {sentence}"))
    return found


def _revoked(version: str, field: str, why: str) -> ServiceError:
    return ServiceError("REVOKED", f"{field} is {version}, which may not be used: {why}", metadata={"name": version})


def _may_see(name: str) -> bool:
    """Returns whether the caller may touch the project of a name; the registry sees only that this service asks."""
    call = current_or_none()
    return call is None or call.principal.may_touch(project_of(name))


async def _absent(answer: Coroutine[Any, Any, T]) -> T | ServiceError:
    """Returns the answer, or the error that says that there is no such thing for this caller."""
    try:
        return await answer
    except ServiceError as error:
        if error.reason not in _ABSENT:
            raise
        return error
