"""One digest over all that the result of a training run depends on. Pure.

Two jobs with the same digest would train the same thing: the same rows, base, spec, seed and code, on the same kind of
device. What says only where, how safely and for whom a run is made is left out: names, labels, the model it publishes
into, checkpoints, memory, patience with lost nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tuneforge.specs.spec import BaseModel, Checkpointing, DataSource, Resources, TrainingSpec

FORM = 1
"""Changed when the same inputs are to give another digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """All that a result depends on."""

    spec: TrainingSpec
    """With every default filled in."""
    base_digest: str
    """Of the base's manifest; an adapter's names the digest of what it stands on."""
    train_digest: str
    validation_digest: str = ""
    """Empty: no validation rows."""
    environment: str = ""
    """Kind of device, e.g. `cpu` or `NVIDIA H200`: other kinds give other bits."""
    code: str = ""
    """Release of the code; empty: this one."""


def training_digest(inputs: TrainingInputs) -> str:
    """Returns the digest, 64 hexadecimal digits."""
    document = {
        "form": FORM,
        "spec": canonical(_result_only(inputs.spec)),
        "base": inputs.base_digest,
        "train": inputs.train_digest,
        "validation": inputs.validation_digest,
        "environment": inputs.environment,
        "code": inputs.code or code_version(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def branched_digest(digest: str, origin: bytes) -> str:
    """Returns the digest of what trains the same, but begins from a checkpoint.

    Args:
        digest: Of what begins at the beginning.
        origin: Serialised `Manifest` of the checkpoint.
    """
    return hashlib.sha256(digest.encode() + hashlib.sha256(origin).digest()).hexdigest()


@cache  # reading it anew took a fifth of a submit
def code_version() -> str:
    """Returns the release that runs here."""
    try:
        return version("tuneforge")
    except PackageNotFoundError:
        return "unreleased"


def _result_only(spec: TrainingSpec) -> TrainingSpec:
    """Returns a spec without what changes nothing in the result; what is named by digest loses its name."""
    asked = spec.resources
    return replace(
        spec,
        base=BaseModel(),
        data=replace(spec.data, train=DataSource(), validation=None),
        seed=spec.seed or 0,
        output_model=None,
        checkpointing=replace(Checkpointing(), every_steps=spec.checkpointing.every_steps)
        if spec.evaluation.use_best
        else Checkpointing(),
        guards=replace(spec.guards, stall_after_s=None, stall_ends_after_s=None),
        resources=Resources(nodes=asked.nodes, devices_per_node=asked.devices_per_node, cpu_millis=asked.cpu_millis),
    )


def canonical(value: object) -> object:
    """Returns a value as JSON can hold it, a dataclass with its name, so that a choice of kinds is told apart."""
    if is_dataclass(value) and not isinstance(value, type):
        content = {each.name: canonical(getattr(value, each.name)) for each in fields(value)}
        return {type(value).__name__: content}
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return {str(key): canonical(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [canonical(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return repr(value)
