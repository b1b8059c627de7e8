"""What a job learns from and starts from: versions at the registry -> facts, and the inputs of its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from services.scheduler.records import Ref
from tuneforge.names import project_of
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.memory import MemoryEstimate
from tuneforge.specs.wire import architecture_from_proto
from tuneforge.v1 import datasets_pb2, events_pb2, jobs_pb2, lineage_pb2, models_pb2, trainer_pb2, types_pb2

KEPT_BYTES_MAX = 1 << 16
"""Bytes of a data set's version up to which it is kept: some hundreds of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A version of a model as the registry knows it."""

    ref: Ref
    is_adapter: bool
    base: Ref | None
    """What an adapter sits on."""
    architecture: Architecture
    layer: bytes
    """Serialised `ModelInput`."""
    full_rate: float = 0.0
    """Peak learning rate of the run that made it by moving all weights; 0: there is none such."""
    taint: str = ""
    """The revocation of what it was made from, as a sentence; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """A version of a data set as the registry knows it."""

    ref: Ref
    rows: int
    data: bytes
    """Serialised `DataInput`."""
    characters: float = 0.0
    """In the texts of a row, mean; 0: not known."""
    shape: str = ""
    """A value of `RowShape` without its prefix."""
    validation_rows: int | None = None
    """Rows for validation of a version that is divided; None: it is not."""
    revocation: str = ""
    """Its revocation, as a sentence; empty: none."""


def model_facts(message: models_pb2.ModelVersion) -> ModelFacts:
    """Converts a version of a model; the same content gives the same object, which estimates are remembered by."""
    return _model_facts(message.SerializeToString(deterministic=True))


@lru_cache(maxsize=64)
def _model_facts(content: bytes) -> ModelFacts:
    message = models_pb2.ModelVersion.FromString(content)
    ref = types_pb2.VersionRef(version=message.name, digest=message.manifest.digest)
    layer = trainer_pb2.ModelInput(ref=ref, manifest=message.manifest, kind=message.kind)
    if message.HasField("signature"):
        layer.signature.CopyFrom(message.signature)
    return ModelFacts(
        ref=Ref(version=ref.version, digest=ref.digest),
        is_adapter=message.kind == events_pb2.ARTIFACT_KIND_ADAPTER,
        base=_ref(message.lineage.base),
        architecture=architecture_from_proto(message.architecture),
        layer=layer.SerializeToString(),
        full_rate=message.lineage.spec.optimization.learning_rate if message.lineage.spec.HasField("full") else 0.0,
        taint=_revocation(message.name, message.taints),
    )


def dataset_facts(message: datasets_pb2.DatasetVersion) -> DatasetFacts:
    """Converts a version of a data set.

    The same content gives the same object, which drafts are remembered by, unless it has very many files: those are
    read anew each time, so that what is kept stays small.
    """
    content = message.SerializeToString(deterministic=True)
    return _kept_dataset(content) if len(content) <= KEPT_BYTES_MAX else _dataset_facts(message)


@lru_cache(maxsize=64)
def _kept_dataset(content: bytes) -> DatasetFacts:
    return _dataset_facts(datasets_pb2.DatasetVersion.FromString(content))


def _dataset_facts(message: datasets_pb2.DatasetVersion) -> DatasetFacts:
    ref = types_pb2.VersionRef(version=message.name, digest=message.manifest.digest)
    data = trainer_pb2.DataInput(ref=ref, manifest=message.manifest)
    if message.HasField("signature"):
        data.signature.CopyFrom(message.signature)
    is_divided = message.split.by_files or message.split.validation_ratio > 0
    if is_divided:
        data.split.CopyFrom(message.split)
    shape = datasets_pb2.RowShape.DESCRIPTOR.values_by_number.get(message.shape)
    return DatasetFacts(
        ref=Ref(version=ref.version, digest=ref.digest),
        rows=message.statistics.train_rows if is_divided else message.rows,
        data=data.SerializeToString(),
        characters=message.statistics.characters.total / message.rows if message.rows else 0.0,
        shape="" if shape is None else shape.name.removeprefix("ROW_SHAPE_"),
        validation_rows=message.statistics.validation_rows if is_divided else None,
        revocation=_revocation(message.name, message.revocations),
    )


def inputs_bytes(layers: Sequence[ModelFacts], train: DatasetFacts, validation: DatasetFacts | None) -> bytes:
    """Returns what every attempt of a job gets: the layers of its base, root first, and its rows."""
    data = validation.data if validation is not None else None
    is_kept = len(train.data) + len(data or b"") <= KEPT_BYTES_MAX
    make = _inputs_bytes if is_kept else _inputs_bytes.__wrapped__
    return make(tuple(layer.layer for layer in layers), train.data, data)


@lru_cache(maxsize=64)
def _inputs_bytes(layers: tuple[bytes, ...], train: bytes, validation: bytes | None) -> bytes:
    request = trainer_pb2.StartAttemptRequest(
        base=[trainer_pb2.ModelInput.FromString(layer) for layer in layers],
        train=trainer_pb2.DataInput.FromString(train),
        validation=trainer_pb2.DataInput.FromString(validation) if validation is not None else None,
    )
    return request.SerializeToString()


def estimate_to_proto(estimate: MemoryEstimate) -> jobs_pb2.MemoryEstimate:
    """Converts a memory estimate to its message."""
    names = jobs_pb2.MemoryEstimate.DESCRIPTOR.fields_by_name
    return jobs_pb2.MemoryEstimate(**{name: getattr(estimate, name) for name in names})


def estimate_bytes(estimate: MemoryEstimate) -> bytes:
    """Returns a memory estimate as it is stored."""
    return estimate_to_proto(estimate).SerializeToString()


def _ref(message: types_pb2.VersionRef) -> Ref | None:
    return Ref(version=message.version, digest=message.digest) if message.version else None


def _revocation(version: str, revocations: Sequence[lineage_pb2.Revocation]) -> str:
    """Returns a version's first revocation as a sentence that a job may keep: it names no data of other projects."""
    if not revocations:
        return ""
    own = [each for each in revocations if each.name and project_of(each.name) == project_of(version)]
    if not own:
        return "it was made from data of another project, which is revoked"
    first = own[0]
    when = first.time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC")
    return f"{first.name} was revoked by {first.actor} on {when}: {first.reason}"
