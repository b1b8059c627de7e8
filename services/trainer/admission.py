"""Whether an attempt may start here: what is wrong with its request, and where its local files are.

Plain rules on dataclasses; nothing is written. Who may ask at all is `agent.py`'s question.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from tuneforge.addresses import split_address
from tuneforge.data.split import Split
from tuneforge.manifest import Manifest
from tuneforge.names import AttemptName
from tuneforge.signatures import Signature
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.validation import validate

TOKEN_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInput:
    """Files by digest: a layer of a base, or rows."""

    version: str
    """Resource name of the version."""
    digest: str
    """Digest of its manifest; empty in rows or layers that the caller did not pin."""
    manifest: Manifest
    """Its files."""
    kind: str = ""
    """`model` or `adapter` for a layer, empty for rows."""
    signature: Signature | None = None
    """The registry's signature over the files; None: the registry is asked for it."""
    split: Split | None = None
    """How rows are divided, by their ids or else by their files; None: not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInput:
    """A checkpoint in the blob store."""

    name: str
    """`projects/{project}/jobs/{job}/checkpoints/{step}`."""
    step: int
    """Step that it was saved after."""
    manifest: Manifest
    """Its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A `StartAttemptRequest`, read."""

    name: AttemptName
    """The attempt."""
    node_rank: int
    """Rank of this node inside the attempt."""
    world_size: int
    """Nodes of the attempt, >= 1."""
    rendezvous: str
    """`host:port` at which rank 0 waits; empty for rank 0 itself."""
    token: str
    """Fencing token; empty: any."""
    manager_token: str
    """Secret of the node's scheduler; empty: none given."""
    spec: TrainingSpec
    """What to train."""
    base: tuple[ArtifactInput, ...]
    """Layers of the base by digest, root first; empty: local."""
    train: ArtifactInput | None
    """Rows by digest; `None`: local."""
    validation: ArtifactInput | None
    """Validation rows by digest; `None`: local or none."""
    checkpoints: tuple[CheckpointInput, ...] = ()
    """What the attempt may go on from, the best first."""
    replay_steps: int = 0
    """Steps to do again after the checkpoint; 0: it is a run."""
    newest_known_step: int | None = None
    """Step of the newest checkpoint that the scheduler's record reaches; newer ones are removed. `None`: all count."""
    rows_at_once: int = 0
    """Most rows that are computed at once; 0: no limit."""
    problems: tuple[FieldViolation, ...]
    """What was found wrong while reading it."""
    content: bytes
    """The request as it is kept: without the manager's secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalInputs:
    """Resolved local files of an attempt; `None` where it has none."""

    base: Path | None = None
    """Folder of the base."""
    train: Path | None = None
    """File of rows."""
    validation: Path | None = None
    """File of validation rows."""


def check(request: StartRequest, *, is_managed: bool, num_devices: int) -> None:
    """Refuses a request that could never be trained, naming every field that is wrong.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    violations = [*request.problems, *_violations(request, is_managed, num_devices)]
    violations += [
        FieldViolation(f"spec.{each.field}", each.description)
        for each in validate(request.spec, allow_local_paths=not is_managed or _local_fields(request) != {})
    ]
    if violations:
        raise invalid_fields(violations)


def resolve_local(request: StartRequest, *, inputs: Path, is_managed: bool) -> LocalInputs:
    """Finds the local files of a request below the inputs folder; links are followed first.

    Raises:
        ServiceError: LOCAL_PATH_REFUSED: the node is managed, or a path leads out of the inputs folder.
        ServiceError: INVALID_FIELD: there is nothing at a path.
    """
    fields = _local_fields(request)
    if fields and is_managed:
        raise ServiceError(
            Reason.LOCAL_PATH_REFUSED,
            f"{next(iter(fields))} is set, but this node has a scheduler; local paths are for unmanaged nodes",
            metadata={"field": next(iter(fields))},
        )
    found: dict[str, Path] = {}
    missing = []
    root = inputs.resolve()
    for field, text in fields.items():
        path = (root / text.replace("\0", "?")).resolve()
        if "\0" in text or not path.is_relative_to(root) or path == root:
            raise ServiceError(
                Reason.LOCAL_PATH_REFUSED,
                f"{field} is {text!r}, which does not lie below the inputs folder of this node",
                metadata={"field": field, "path": text},
            )
        is_base = field == "spec.base.local_path"
        if not (os.path.isdir(path) if is_base else os.path.isfile(path)) or not os.access(path, os.R_OK):  # noqa: PTH112, PTH113 - they take names that are too long
            what = "folder with a safetensors model" if is_base else "JSONL file"
            missing.append(FieldViolation(field, f"is {text!r}: below the inputs folder there is no such {what}"))
        found[field] = path
    if missing:
        raise invalid_fields(missing)
    return LocalInputs(
        base=found.get("spec.base.local_path"),
        train=found.get("spec.data.train.local_path"),
        validation=found.get("spec.data.validation.local_path"),
    )


def _local_fields(request: StartRequest) -> dict[str, str]:
    """Returns the local paths that the request would use, by field."""
    data = request.spec.data
    fields = {
        "spec.base.local_path": None if request.base else request.spec.base.local_path,
        "spec.data.train.local_path": None if request.train else data.train.local_path,
        "spec.data.validation.local_path": None
        if request.validation or data.validation is None
        else data.validation.local_path,
    }
    return {field: path for field, path in fields.items() if path}


def _violations(request: StartRequest, is_managed: bool, num_devices: int) -> Iterator[FieldViolation]:
    if is_managed and not request.token:
        yield FieldViolation("token", "is missing: a managed node needs the fencing token of the attempt")
    if len(request.token) > TOKEN_CHARACTERS:
        yield FieldViolation("token", f"has {len(request.token)} characters: use 1 to {TOKEN_CHARACTERS}")
    yield from _gang(request)
    yield from _missing_inputs(request)
    if request.base and request.base[0].kind != "model":
        yield FieldViolation("base[0].kind", "is not MODEL: the first layer of a base is a whole model")
    for index, layer in enumerate(request.base[1:], 1):
        if layer.kind != "adapter":
            yield FieldViolation(f"base[{index}].kind", "is not ADAPTER: what lies on a base is an adapter")
    devices = request.spec.resources.devices_per_node
    if devices is not None and devices > num_devices:
        yield FieldViolation("spec.resources.devices_per_node", f"is {devices}: this node has {num_devices}")


def _gang(request: StartRequest) -> Iterator[FieldViolation]:
    nodes = request.spec.resources.nodes or 1
    if request.world_size != nodes:
        yield FieldViolation("world_size", f"is {request.world_size}: `spec.resources.nodes` is {nodes}")
    if request.node_rank == 0 and request.rendezvous:
        yield FieldViolation("rendezvous", "is set: the node with rank 0 chooses it, and its status tells it")
    if request.node_rank and split_address(request.rendezvous) is None:
        yield FieldViolation("rendezvous", f"is {request.rendezvous!r}: use `rendezvous` of the status of rank 0")
    if request.node_rank >= request.world_size:
        yield FieldViolation("node_rank", f"is {request.node_rank}: use 0 to {request.world_size - 1}")


def _missing_inputs(request: StartRequest) -> Iterator[FieldViolation]:
    spec = request.spec
    if not request.base and not spec.base.local_path and (spec.base.model or spec.base.output_of_job):
        yield FieldViolation("base", "is missing: give the layers of `spec.base` by digest, or set a local path")
    if request.train is None and not spec.data.train.local_path and spec.data.train.dataset:
        yield FieldViolation("train", "is missing: give the rows of `spec.data.train` by digest, or set a local path")
    validation = spec.data.validation
    if request.validation is None and validation and not validation.local_path and validation.dataset:
        yield FieldViolation("validation", "is missing: give the rows of `spec.data.validation` by digest")
