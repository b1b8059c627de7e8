"""Models and their versions: messages <-> plain values."""

from dataclasses import replace

from services.registry.models.examination import AdapterBase, Publication, Reference, import_digest
from services.registry.models.facts import Facts, size_class
from services.registry.models.listing import ListedModel
from services.registry.models.reports import report_of_run
from services.registry.models.resources import ArtifactKind, ModelContent, ModelVersion, Origin
from services.registry.models.shapes import Architecture
from services.registry.wire import manifest_of_request, manifest_to_proto, timestamp
from tuneforge.architectures import FRAMEWORK, task_of
from tuneforge.manifest import Manifest
from tuneforge.names import ModelName
from tuneforge.v1 import events_pb2, models_pb2, types_pb2

_KINDS = {
    events_pb2.ARTIFACT_KIND_MODEL: ArtifactKind.MODEL,
    events_pb2.ARTIFACT_KIND_ADAPTER: ArtifactKind.ADAPTER,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def model_to_proto(listed: ListedModel) -> models_pb2.Model:
    """Converts a model to its message."""
    model, own, newest = listed.model, listed.own, listed.newest
    return models_pb2.Model(
        name=str(model.name),
        description=model.description,
        create_time=timestamp(model.create_time_us),
        creator=model.creator,
        latest_version=str(model.name.version(model.latest)) if model.latest else "",
        tags=own.tags,
        license=own.license,
        domain=own.domain,
        metadata=own.metadata,
        etag=own.etag,
        update_time=timestamp(own.update_time_us or model.create_time_us),
        task=newest.task,
        framework=newest.framework,
        architecture=newest.architecture,
        parameters=newest.parameters,
        size_class=size_class(newest.parameters),
        size_bytes=newest.size_bytes,
    )


def imported_content(
    manifest: Manifest, architecture: Architecture | None, base: AdapterBase | None = None, wanted: Facts | None = None
) -> ModelContent:
    """Makes what is stored of an import.

    Args:
        manifest: Its files.
        architecture: Of a whole model; None for an adapter.
        base: Of an adapter; None for a whole model.
        wanted: The changeable facts that came with it; None: there are none.
    """
    record = models_pb2.ModelVersion()
    origin = Origin()
    if base is not None:
        record.lineage.base.version = str(base.version.name)
        record.lineage.base.digest = base.version.content.digest
        origin = Origin(base_version=str(base.version.name))
    kind = ArtifactKind.MODEL if base is None else ArtifactKind.ADAPTER
    content = _content(manifest, kind, origin, record, architecture)
    if base is not None:
        content = _like_base(content, record, base.version)
    return replace(
        content, facts=_facts(content, record, wanted or Facts()), import_digest=import_digest(manifest, base)
    )


def publication_of_request(request: models_pb2.PublishVersionRequest) -> Publication:
    """Converts what a job asks to have published.

    Raises:
        InvalidName: `parent` is not the name of a model.
        ServiceError: The manifest is malformed, see `manifest_of_request`.
    """
    lineage = request.lineage
    return Publication(
        model=ModelName.parse(request.parent),
        manifest=manifest_of_request(request.manifest),
        kind=_KINDS.get(request.kind),
        job=lineage.job,
        base=reference_of(lineage.base),
        dataset=reference_of(lineage.dataset),
        validation=reference_of(lineage.validation),
    )


def reference_of(message: types_pb2.VersionRef) -> Reference:
    """Converts a reference to a version."""
    return Reference(version=message.version, digest=message.digest)


def published_content(
    publication: Publication,
    request: models_pb2.PublishVersionRequest,
    architecture: Architecture | None,
    base: ModelVersion | None,
) -> ModelContent:
    """Makes what is stored of a publication.

    Args:
        publication: What is published.
        request: As it came; its lineage and metrics are stored as they are.
        architecture: Of a whole model; None for an adapter, which has that of its base.
        base: The stored base, if there is one; an adapter has one. Its license and domain are those of the result.

    Raises:
        ServiceError: `INVALID_FIELD`: the report of the run's checks is malformed.
    """
    if publication.kind is None:
        raise ValueError("a publication without kind is refused before it comes here")
    record = models_pb2.ModelVersion(lineage=request.lineage, metrics=request.metrics)
    origin = Origin(
        job=publication.job, base_version=publication.base.version, dataset_version=publication.dataset.version
    )
    content = _content(publication.manifest, publication.kind, origin, record, architecture)
    if architecture is None and base is not None:
        content = _like_base(content, record, base)
    wanted = Facts(license=base.content.facts.license, domain=base.content.facts.domain) if base else Facts()
    report = report_of_run(request.validation_report) if request.HasField("validation_report") else None
    return replace(
        content, facts=_facts(content, record, wanted), metrics=dict[str, float](request.metrics), report=report
    )


def _like_base(content: ModelContent, record: models_pb2.ModelVersion, base: ModelVersion) -> ModelContent:
    """Returns the content of an adapter, which has the architecture of what it sits on."""
    record.architecture.CopyFrom(models_pb2.ModelVersion.FromString(base.content.record).architecture)
    return replace(content, record=record.SerializeToString(), tensors=base.content.tensors)


def _facts(content: ModelContent, record: models_pb2.ModelVersion, wanted: Facts) -> Facts:
    class_name = record.architecture.class_name
    return replace(
        wanted,
        task=task_of(class_name) or "",
        framework=FRAMEWORK,
        architecture=class_name,
        kind=content.kind.value,
        parameters=record.architecture.parameters,
        size_bytes=content.size_bytes,
        revision=1,
    )


def _content(
    manifest: Manifest,
    kind: ArtifactKind,
    origin: Origin,
    record: models_pb2.ModelVersion,
    architecture: Architecture | None,
) -> ModelContent:
    record.manifest.CopyFrom(manifest_to_proto(manifest))
    record.kind = _KIND_NUMBERS[kind]
    record.size_bytes = manifest.size_bytes
    tensors = models_pb2.ModelVersion()
    if architecture is not None:
        record.architecture.class_name = architecture.class_name
        record.architecture.config_json = architecture.config_json
        record.architecture.parameters = sum(tensor.size for tensor in architecture.tensors)
        if architecture.seed is not None:
            record.initialization.seed = architecture.seed
        tensors.architecture.tensors.extend(
            models_pb2.TensorShape(name=tensor.name, shape=tensor.shape, dtype=tensor.dtype)
            for tensor in architecture.tensors
        )
    return ModelContent(
        kind=kind,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        origin=origin,
        record=record.SerializeToString(),
        tensors=tensors.SerializeToString(),
    )


def model_version_to_proto(version: ModelVersion) -> models_pb2.ModelVersion:
    """Converts a model version to its message; without tensors where the store left them out."""
    # Two serialised messages one after the other are one message: the repeated fields follow each other.
    message = models_pb2.ModelVersion.FromString(version.content.record + version.content.tensors)
    facts = version.content.facts
    message.name = str(version.name)
    message.create_time.CopyFrom(timestamp(version.create_time_us))
    message.creator = version.creator
    message.description, message.license, message.domain = facts.description, facts.license, facts.domain
    message.task, message.framework = facts.task, facts.framework
    message.tags.extend(facts.tags)
    message.metadata.update(facts.metadata)
    message.etag = facts.etag
    message.update_time.CopyFrom(timestamp(facts.update_time_us or version.create_time_us))
    message.size_class = size_class(facts.parameters)
    return message
