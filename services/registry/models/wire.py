"""Models and their versions: messages <-> plain values."""

from dataclasses import replace

from services.registry.collections import Collection
from services.registry.models.examination import Publication, Reference
from services.registry.models.resources import Architecture, ArtifactKind, ModelContent, ModelVersion, Origin
from services.registry.wire import manifest_of_request, manifest_to_proto, timestamp
from tuneforge.manifest import Manifest
from tuneforge.names import ModelName
from tuneforge.v1 import events_pb2, models_pb2, types_pb2

_KINDS = {
    events_pb2.ARTIFACT_KIND_MODEL: ArtifactKind.MODEL,
    events_pb2.ARTIFACT_KIND_ADAPTER: ArtifactKind.ADAPTER,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def model_to_proto(collection: Collection) -> models_pb2.Model:
    """Converts a model to its message."""
    return models_pb2.Model(
        name=str(collection.name),
        description=collection.description,
        create_time=timestamp(collection.create_time_us),
        creator=collection.creator,
        latest_version=str(collection.name.version(collection.latest)) if collection.latest else "",
    )


def imported_content(manifest: Manifest, architecture: Architecture) -> ModelContent:
    """Makes what is stored of an import."""
    return _content(manifest, ArtifactKind.MODEL, Origin(), models_pb2.ModelVersion(), architecture)


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
        base=_reference(lineage.base),
        dataset=_reference(lineage.dataset),
        validation=_reference(lineage.validation),
    )


def _reference(message: types_pb2.VersionRef) -> Reference:
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
        base: The stored base, if there is one; an adapter has one.
    """
    if publication.kind is None:
        raise ValueError("a publication without kind is refused before it comes here")
    record = models_pb2.ModelVersion(lineage=request.lineage, metrics=request.metrics)
    origin = Origin(
        job=publication.job, base_version=publication.base.version, dataset_version=publication.dataset.version
    )
    content = _content(publication.manifest, publication.kind, origin, record, architecture)
    if architecture is None and base is not None:
        record.architecture.CopyFrom(models_pb2.ModelVersion.FromString(base.content.record).architecture)
        return replace(content, record=record.SerializeToString(), tensors=base.content.tensors)
    return content


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
    message.name = str(version.name)
    message.create_time.CopyFrom(timestamp(version.create_time_us))
    message.creator = version.creator
    return message
