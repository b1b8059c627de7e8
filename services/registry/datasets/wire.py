"""Data sets and their versions to messages."""

from typing import Any

from services.registry.datasets.resources import Dataset, DatasetVersion
from services.registry.wire import manifest_to_proto, timestamp
from tuneforge.data.split import Side, Split
from tuneforge.v1 import datasets_pb2, rows_pb2


def dataset_to_proto(dataset: Dataset) -> datasets_pb2.Dataset:
    """Converts a data set to its message."""
    message = datasets_pb2.Dataset(
        name=str(dataset.name),
        description=dataset.description,
        create_time=timestamp(dataset.create_time_us),
        creator=dataset.creator,
        latest_version=str(dataset.name.version(dataset.latest)) if dataset.latest else "",
        tags=dataset.tags,
        metadata=dataset.metadata,
        etag=dataset.etag,
    )
    if dataset.update_time_us is not None:
        message.update_time.CopyFrom(timestamp(dataset.update_time_us))
    return message


def dataset_version_to_proto(version: DatasetVersion, *, with_details: bool = True) -> datasets_pb2.DatasetVersion:
    """Converts a data set version to its message.

    Args:
        version: To convert.
        with_details: Whether with statistics and remarks.
    """
    content = version.content
    message = datasets_pb2.DatasetVersion.FromString(content.record)
    if not with_details:
        message.ClearField("statistics")
        message.ClearField("remarks")
    message.name = str(version.name)
    message.manifest.CopyFrom(manifest_to_proto(content.manifest))
    message.shape = datasets_pb2.RowShape.Value(f"ROW_SHAPE_{content.shape}")
    message.rows = content.rows
    message.size_bytes = content.manifest.size_bytes
    message.create_time.CopyFrom(timestamp(version.create_time_us))
    message.creator = version.creator
    return message


def record_of(found: dict[str, Any], split: Split) -> datasets_pb2.DatasetVersion:
    """Returns the parts of a version's message that have no column.

    Args:
        found: What the examiner answered; without errors.
        split: How rows are divided.
    """
    statistics = found["statistics"]
    record = datasets_pb2.DatasetVersion(format=datasets_pb2.DataFormat.Value(f"DATA_FORMAT_{found['format']}"))
    record.split.validation_ratio = split.validation_ratio
    record.split.seed = split.seed
    record.split.by_files = found["is_divided"]
    sides = statistics["sides"]
    record.statistics.CopyFrom(
        datasets_pb2.DatasetStatistics(
            train_rows=sides.get(Side.TRAIN, 0),
            validation_rows=sides.get(Side.VALIDATION, 0),
            test_rows=sides.get(Side.TEST, 0),
            duplicate_rows=statistics["duplicates"],
            characters=datasets_pb2.SizeDistribution(**statistics["characters"]),
            target_characters=datasets_pb2.SizeDistribution(**statistics["target_characters"]),
            turns={int(turns): rows for turns, rows in statistics["turns"].items()},
            labels={label[:200]: rows for label, rows in statistics["labels"].items()},
            num_labels=statistics["num_labels"],
            rows_with_tools=statistics["with_tools"],
        )
    )
    for remark in found["remarks"]:
        record.remarks.add(
            code=remark["code"],
            is_warning=remark["severity"] == "WARNING",
            file=remark["file"],
            line=remark["line"],
            message=remark["message"],
            cure=remark["cure"],
        )
    return record


def row_to_proto(row: dict[str, Any]) -> rows_pb2.DatasetRow:
    """Converts a row, as the examiner gives it, to its message."""
    return rows_pb2.DatasetRow(
        row_id=row["id"],
        content_json=row["json"],
        is_cut=row["is_cut"],
        file=row["file"],
        line=row["line"],
        side=rows_pb2.SplitSide.Value(f"SPLIT_SIDE_{row['side']}"),
        shape=datasets_pb2.RowShape.Value(f"ROW_SHAPE_{row['shape']}"),
    )
