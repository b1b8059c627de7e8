"""Data sets and their versions to messages."""

from services.registry.collections import Collection
from services.registry.datasets.resources import DatasetVersion
from services.registry.wire import manifest_to_proto, timestamp
from tuneforge.v1 import datasets_pb2


def dataset_to_proto(collection: Collection) -> datasets_pb2.Dataset:
    """Converts a data set to its message."""
    return datasets_pb2.Dataset(
        name=str(collection.name),
        description=collection.description,
        create_time=timestamp(collection.create_time_us),
        creator=collection.creator,
        latest_version=str(collection.name.version(collection.latest)) if collection.latest else "",
    )


def dataset_version_to_proto(version: DatasetVersion) -> datasets_pb2.DatasetVersion:
    """Converts a data set version to its message."""
    content = version.content
    return datasets_pb2.DatasetVersion(
        name=str(version.name),
        manifest=manifest_to_proto(content.manifest),
        shape=datasets_pb2.RowShape.Value(f"ROW_SHAPE_{content.shape}"),
        rows=content.rows,
        size_bytes=content.manifest.size_bytes,
        create_time=timestamp(version.create_time_us),
        creator=version.creator,
    )
