"""Models, their versions and what is said of them, as values; `tuneforge.models` fetches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from tuneforge import _wire
from tuneforge._check_wire import check_from_proto
from tuneforge.checks import Check, report_json
from tuneforge.lineage import Revocation, revocation_from_proto
from tuneforge.manifest import Manifest
from tuneforge.origins import Source, source_from_proto
from tuneforge.signatures import Signature
from tuneforge.specs.spec import Architecture, TrainingSpec
from tuneforge.specs.wire import architecture_from_proto, spec_from_proto
from tuneforge.v1 import events_pb2, profiles_pb2, validations_pb2
from tuneforge.v1 import models_pb2 as pb
from tuneforge.values import ArtifactKind, RunRecord, VersionRef, Word

_NOTHING: Mapping[str, str] = MappingProxyType({})


class SizeClass(Word):
    """How large a model is, by its number of weights."""

    UNKNOWN = "UNKNOWN"
    UNSPECIFIED = "UNSPECIFIED"
    """There is no version yet."""
    SMALL = "SMALL"
    """Below 100 million."""
    BASE = "BASE"
    """100 million to below 500 million."""
    LARGE = "LARGE"
    """500 million to below 2 billion."""
    XL = "XL"
    """2 billion and more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What people may say and change of a model or a version; None leaves a field as it is."""

    description: str | None = None
    tags: Sequence[str] | None = None
    license: str | None = None
    """Best as an SPDX id such as `apache-2.0`."""
    domain: str | None = None
    """Field of use."""
    metadata: Mapping[str, str] | None = None
    """All of it: keys that are left out go away. `intended_use` and `notes` are shown on the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFilter:
    """Which models or versions a list has: those that match all that is set."""

    query: str = ""
    """Text in id or description."""
    task: str = ""
    """E.g. `text-generation`."""
    framework: str = ""
    architecture: str = ""
    """E.g. `LlamaForCausalLM`."""
    license: str = ""
    domain: str = ""
    tags: Sequence[str] = ()
    """All of these."""
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """All of these keys with these values; an empty value matches every one."""
    size_class: SizeClass | None = None
    kind: ArtifactKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A named model that grows by versions."""

    name: str
    """`projects/{project}/models/{model}`."""
    description: str
    latest_version: str | None
    """Name of its newest version; None when there is none."""
    create_time: datetime
    creator: str
    tags: tuple[str, ...] = ()
    license: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    etag: str = ""
    """Changes with each update."""
    task: str = ""
    """Of its newest version, as are the fields below."""
    framework: str = ""
    architecture: str = ""
    parameters: int = 0
    size_class: SizeClass = SizeClass.UNSPECIFIED
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a version was made from; of an import only an adapter has a base."""

    base: VersionRef | None
    """The version it started from."""
    dataset: VersionRef | None
    """The data set version it learned from."""
    validation: VersionRef | None
    """The data set version it was validated on."""
    job: str | None
    """The job that made it."""
    attempt: int
    """The attempt of that job, from 1; 0 for an import."""
    spec: TrainingSpec | None
    """The spec with every `auto` resolved."""
    environment: Mapping[str, str]
    """Versions and devices of the run, by name."""
    run_record: RunRecord | None = None
    """Head of the hash chain over the run's events; None for an import, and for what came before such records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable state of a model and all it was made from."""

    name: str
    """`projects/{project}/models/{model}/versions/{version}`."""
    manifest: Manifest
    """Its files and the digest over them."""
    kind: ArtifactKind
    architecture: Architecture
    """What is known of it without loading it; a list of versions leaves `tensors` out."""
    parameters: int
    """Number of weights; for an adapter, of its base."""
    lineage: Lineage
    metrics: Mapping[str, float]
    """Final figures of the run by name, e.g. `evaluation_loss`."""
    size_bytes: int
    create_time: datetime
    creator: str
    description: str = ""
    framework: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    license: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    etag: str = ""
    """Changes with each update of the fields that may change."""
    size_class: SizeClass = SizeClass.UNSPECIFIED
    seed: int | None = None
    """Seed of the weights of a model from a configuration alone; None where there are weight files."""
    source: Source | None = None
    """Where its content was fetched from; None for an upload or the result of a job."""
    signature: Signature | None = None
    """The registry's signature over its files; lists leave it out."""
    taints: tuple[Revocation, ...] = ()
    """Revocations of data that it was made from; with one, no job, alias or new deployment takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """What one examination of a version found."""

    name: str
    """`projects/{project}/models/{model}/versions/{version}/validations/{validation}`."""
    checks: tuple[Check, ...]
    passed: bool
    """Whether every check passed."""
    source: str
    """Which tool or person examined, in the words of who stored it."""
    not_run: Mapping[str, str]
    """Checks that could not be made, by name, with the reason."""
    create_time: datetime
    creator: str
    """Who stored it."""
    roles: tuple[str, ...]
    """Roles with which it was stored; gates go by them."""
    text: str
    """The report for people."""

    def to_json(self) -> str:
        """Returns the report for programs."""
        return report_json(self.name.rpartition("/validations/")[0], self.checks, self.not_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What a version needs to be served, by a stated rule and by arithmetic over its shapes."""

    name: str
    """The version."""
    model_id: str
    base_model_id: str
    fine_tuning_method: str
    """`lora`, `qlora` or `full`; empty for an import."""
    precision: str
    memory_gb: float
    """By the rule of `formula`, in 10^9 bytes."""
    recommended_partition_gb: float
    parameters: str
    """Size as people write it, e.g. `7B`."""
    parameter_count: int
    formula: str
    serving_bytes: int
    """By shapes: weights, adapters, keys and values of one sequence, libraries."""
    training_bytes: int
    """Predicted peak memory of the run that made it; 0 for an import."""
    profile_json: str
    """As `aim_profile.json`."""
    training_info_json: str
    """As `training_info.json` with the run's times; empty for an import."""


def model_from_proto(message: pb.Model) -> Model:
    """Converts a model."""
    return Model(
        name=message.name,
        description=message.description,
        latest_version=message.latest_version or None,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        tags=tuple(message.tags),
        license=message.license,
        domain=message.domain,
        metadata=_wire.frozen(message.metadata),
        etag=message.etag,
        task=message.task,
        framework=message.framework,
        architecture=message.architecture,
        parameters=message.parameters,
        size_class=_wire.word(SizeClass, pb.SizeClass.DESCRIPTOR, message.size_class),
        size_bytes=message.size_bytes,
    )


def version_from_proto(message: pb.ModelVersion) -> ModelVersion:
    """Converts a version."""
    return ModelVersion(
        name=message.name,
        manifest=_wire.manifest(message.manifest),
        kind=_wire.word(ArtifactKind, events_pb2.ArtifactKind.DESCRIPTOR, message.kind),
        architecture=architecture_from_proto(message.architecture),
        parameters=message.architecture.parameters,
        lineage=_lineage(message.lineage),
        metrics=MappingProxyType(dict(message.metrics)),
        size_bytes=message.size_bytes,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        source=source_from_proto(message.source),
        description=message.description,
        framework=message.framework,
        task=message.task,
        tags=tuple(message.tags),
        license=message.license,
        domain=message.domain,
        metadata=_wire.frozen(message.metadata),
        etag=message.etag,
        size_class=_wire.word(SizeClass, pb.SizeClass.DESCRIPTOR, message.size_class),
        seed=message.initialization.seed if message.HasField("initialization") else None,
        signature=_wire.signature(message.signature) if message.HasField("signature") else None,
        taints=tuple(map(revocation_from_proto, message.taints)),
    )


def report_from_proto(message: validations_pb2.ValidationReport) -> ValidationReport:
    """Converts a validation report."""
    return ValidationReport(
        name=message.name,
        checks=tuple(map(check_from_proto, message.checks)),
        passed=message.passed,
        source=message.source,
        not_run=_wire.frozen(message.not_run),
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        roles=tuple(message.roles),
        text=message.text,
    )


def profile_from_proto(message: profiles_pb2.ModelProfile) -> ModelProfile:
    """Converts a profile."""
    return ModelProfile(
        name=message.name,
        model_id=message.model_id,
        base_model_id=message.base_model_id,
        fine_tuning_method=message.fine_tuning_method,
        precision=message.precision,
        memory_gb=message.memory_gb,
        recommended_partition_gb=message.recommended_partition_gb,
        parameters=message.parameters,
        parameter_count=message.parameter_count,
        formula=message.formula,
        serving_bytes=message.serving.total_bytes,
        training_bytes=message.training_bytes,
        profile_json=message.profile_json,
        training_info_json=message.training_info_json,
    )


def filter_to_proto(wanted: ModelFilter) -> pb.ModelFilter:
    """Converts a filter."""
    message = pb.ModelFilter(
        query=wanted.query,
        task=wanted.task,
        framework=wanted.framework,
        architecture=wanted.architecture,
        license=wanted.license,
        domain=wanted.domain,
        tags=wanted.tags,
        metadata=wanted.metadata,
    )
    if wanted.size_class is not None:
        message.size_class = pb.SizeClass.Value(f"SIZE_CLASS_{wanted.size_class.value}")
    if wanted.kind is not None:
        message.kind = events_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{wanted.kind.value}")
    return message


def given_facts(facts: ModelFacts) -> dict[str, Any]:
    """Returns the facts that are given, as the fields of a message."""
    values = {name: getattr(facts, name) for name in ("description", "tags", "license", "domain", "metadata")}
    return {name: value for name, value in values.items() if value is not None}


def _lineage(message: pb.Lineage) -> Lineage:
    return Lineage(
        base=_wire.version_ref(message.base),
        dataset=_wire.version_ref(message.dataset),
        validation=_wire.version_ref(message.validation),
        job=message.job or None,
        attempt=message.attempt,
        spec=spec_from_proto(message.spec) if message.HasField("spec") else None,
        environment=_wire.frozen(message.environment),
        run_record=RunRecord(num_events=message.run_record.num_events, head=message.run_record.head)
        if message.HasField("run_record")
        else None,
    )
