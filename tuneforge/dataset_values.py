"""What the registry tells of data sets, as plain values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tuneforge import _wire
from tuneforge.lineage import Revocation, revocation_from_proto
from tuneforge.manifest import Manifest
from tuneforge.origins import Source, source_from_proto
from tuneforge.signatures import Signature
from tuneforge.v1 import datasets_pb2 as pb
from tuneforge.v1 import rows_pb2
from tuneforge.values import Word


class RowShape(Word):
    """What the rows of a data set look like."""

    UNKNOWN = "UNKNOWN"
    MESSAGES = "MESSAGES"
    """`{"messages": [{"role": ..., "content": ...}, ...]}`, perhaps with tool calls and `tools`."""
    PROMPT_COMPLETION = "PROMPT_COMPLETION"
    """`{"prompt": ..., "completion": ...}`."""
    INSTRUCTION = "INSTRUCTION"
    """`{"instruction": ..., "input": ..., "output": ...}`, `input` optional."""
    SHAREGPT = "SHAREGPT"
    """`{"conversations": [{"from": ..., "value": ...}, ...]}`; read as messages."""
    TEXT = "TEXT"
    """`{"text": ...}`: all of it is learned."""
    PREFERENCE = "PREFERENCE"
    """`{"prompt": ..., "chosen": ..., "rejected": ...}`, texts or lists of turns."""
    TEXT_LABEL = "TEXT_LABEL"
    """`{"text": ..., "label": ...}`."""
    IMAGE_LABEL = "IMAGE_LABEL"
    """`{"image": ..., "label": ...}`; the image stays in its file."""
    CLICK_SESSION = "CLICK_SESSION"
    """A search with its results and what was clicked."""


class DataFormat(Word):
    """How rows are written."""

    UNKNOWN = "UNKNOWN"
    JSONL = "JSONL"
    JSON = "JSON"
    CSV = "CSV"
    PARQUET = "PARQUET"
    TEXT = "TEXT"
    IMAGES = "IMAGES"
    ARROW = "ARROW"


class SplitSide(Word):
    """What a row is for."""

    UNKNOWN = "UNKNOWN"
    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    TEST = "TEST"
    """Kept apart: neither learned nor measured during a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named set of rows that grows by versions."""

    name: str
    """`projects/{project}/datasets/{dataset}`."""
    description: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    latest_version: str | None
    """Name of its newest version; None when there is none."""
    create_time: datetime
    creator: str
    update_time: datetime | None = None
    """When description, tags or metadata were changed; None: never."""
    etag: str = ""
    """Changes with each change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSplit:
    """How the rows of a version are divided into train and validation."""

    validation_ratio: float = 0.0
    """Share of the distinct rows that is for validation, 0 (none) to 0.5."""
    seed: int = 0
    by_files: bool = False
    """Whether the files themselves divide the rows, by names like `train.jsonl` or `validation/`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of rows in characters."""

    smallest: int
    largest: int
    total: int
    quantiles: tuple[int, ...]
    """At 5, 25, 50, 75, 95 and 99 percent of the rows, each at most 5 % off; empty without rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatistics:
    """What the rows of a version are like."""

    train_rows: int
    validation_rows: int
    test_rows: int
    duplicate_rows: int
    """Rows whose content stands in an earlier row."""
    characters: Sizes
    """Of the texts of a row."""
    target_characters: Sizes
    """Of what a row teaches; all 0 for shapes that no language model learns."""
    turns: Mapping[int, int]
    """Turns of a conversation -> rows; 64 stands for 64 and more."""
    labels: Mapping[str, int]
    """Label -> rows, the 100 most frequent."""
    num_labels: int
    """Different labels; 1000 stands for 1000 and more."""
    rows_with_tools: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRemark:
    """Something that people should know of the rows of a version."""

    code: str
    """What it is, e.g. `COLUMN_RENAMED`."""
    is_warning: bool
    """Whether it may be a mistake."""
    file: str
    """Empty: all of them."""
    line: int
    """0: the file as a whole."""
    message: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """One immutable state of a data set."""

    name: str
    """`projects/{project}/datasets/{dataset}/versions/{version}`."""
    manifest: Manifest
    """Its files and the digest over them."""
    shape: RowShape
    format: DataFormat = DataFormat.UNKNOWN
    """UNKNOWN for versions from before formats were noted: JSONL."""
    rows: int
    split: DatasetSplit = DatasetSplit()
    statistics: DatasetStatistics | None = None
    """None in lists."""
    remarks: tuple[DatasetRemark, ...] = ()
    """The first 20; none in lists."""
    size_bytes: int
    create_time: datetime
    creator: str
    source: Source | None = None
    """Where its content was fetched from; None for an upload."""
    signature: Signature | None = None
    """The registry's signature over its files; lists leave it out."""
    revocations: tuple[Revocation, ...] = ()
    """Revocations that it falls under; with one, no job takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRow:
    """One row of a version."""

    row_id: str
    """SHA-256 of its content, 64 hexadecimal digits."""
    content: Mapping[str, Any]
    """The parts that its shape names."""
    is_cut: bool
    """Whether long texts in it were cut."""
    file: str
    line: int
    """The line in which it begins, or its number in a format without lines, from 1."""
    side: SplitSide
    shape: RowShape


def dataset_of(message: pb.Dataset) -> Dataset:
    """Reads a data set."""
    return Dataset(
        name=message.name,
        description=message.description,
        tags=tuple(message.tags),
        metadata=dict(message.metadata),
        latest_version=message.latest_version or None,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        update_time=_wire.instant(message.update_time) if message.HasField("update_time") else None,
        etag=message.etag,
    )


def version_of(message: pb.DatasetVersion) -> DatasetVersion:
    """Reads a version."""
    split = message.split
    return DatasetVersion(
        name=message.name,
        manifest=_wire.manifest(message.manifest),
        shape=_wire.word(RowShape, pb.RowShape.DESCRIPTOR, message.shape),
        format=_wire.word(DataFormat, pb.DataFormat.DESCRIPTOR, message.format),
        rows=message.rows,
        split=DatasetSplit(validation_ratio=split.validation_ratio, seed=split.seed, by_files=split.by_files),
        statistics=_statistics(message.statistics) if message.HasField("statistics") else None,
        remarks=tuple(
            DatasetRemark(
                code=each.code,
                is_warning=each.is_warning,
                file=each.file,
                line=each.line,
                message=each.message,
                cure=each.cure,
            )
            for each in message.remarks
        ),
        size_bytes=message.size_bytes,
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
        source=source_from_proto(message.source),
        signature=_wire.signature(message.signature) if message.HasField("signature") else None,
        revocations=tuple(map(revocation_from_proto, message.revocations)),
    )


def row_of(message: rows_pb2.DatasetRow) -> DatasetRow:
    """Reads a row."""
    return DatasetRow(
        row_id=message.row_id,
        content=json.loads(message.content_json),
        is_cut=message.is_cut,
        file=message.file,
        line=message.line,
        side=_wire.word(SplitSide, rows_pb2.SplitSide.DESCRIPTOR, message.side),
        shape=_wire.word(RowShape, pb.RowShape.DESCRIPTOR, message.shape),
    )


def _statistics(message: pb.DatasetStatistics) -> DatasetStatistics:
    return DatasetStatistics(
        train_rows=message.train_rows,
        validation_rows=message.validation_rows,
        test_rows=message.test_rows,
        duplicate_rows=message.duplicate_rows,
        characters=_sizes(message.characters),
        target_characters=_sizes(message.target_characters),
        turns=dict(sorted(message.turns.items())),
        labels=dict(sorted(message.labels.items(), key=lambda item: (-item[1], item[0]))),
        num_labels=message.num_labels,
        rows_with_tools=message.rows_with_tools,
    )


def _sizes(message: pb.SizeDistribution) -> Sizes:
    return Sizes(
        smallest=message.smallest, largest=message.largest, total=message.total, quantiles=tuple(message.quantiles)
    )
