"""How a version of a data set comes to be: its blobs are there, and every row of them can be read."""

from typing import Any, Final

from sqlalchemy import Connection

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.blobs.store import blob_sizes
from services.registry.datasets import examining, store, wire
from services.registry.datasets.resources import DatasetContent, RowShape
from services.registry.library import Library
from services.registry.manifests import listed, require_stored
from tuneforge.data.split import LARGEST_RATIO, Split
from tuneforge.manifest import Manifest
from tuneforge.names import DatasetName
from tuneforge.v1 import datasets_pb2

_NO_SPLIT: Final = Split()
_MOST_EXCERPTS: Final = 8
"""Problems up to which the answer shows what stands there; with more of them it would not fit."""
_EXHAUSTED: Final[examining.Found] = {
    "errors": [
        {
            "file": "",
            "line": 0,
            "field": "",
            "code": "LIMIT_EXCEEDED",
            "excerpt": "",
            "message": "Reading the files takes more memory or time than any real data set of their size.",
            "cure": "Write them again, in smaller row groups or files.",
        }
    ],
    "num_errors": 1,
    "counts": {"LIMIT_EXCEEDED": 1},
}


def split_of(message: datasets_pb2.DatasetSplit) -> Split:
    """Reads how rows are to be divided.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    violations = []
    if not 0 <= message.validation_ratio <= LARGEST_RATIO:
        found = f"is {message.validation_ratio:g}; give 0 (none) to {LARGEST_RATIO}"
        violations.append(FieldViolation("split.validation_ratio", found))
    if message.seed < 0:
        violations.append(FieldViolation("split.seed", f"is {message.seed}; give 0 or more"))
    if violations:
        raise invalid_fields(violations)
    return Split(validation_ratio=message.validation_ratio, seed=message.seed if message.validation_ratio else 0)


def split_key(split: Split) -> str:
    """Returns how rows are divided as a text, in one way; empty: not."""
    return f"{split.validation_ratio!r}:{split.seed}" if split.validation_ratio else ""


async def examine(library: Library, name: DatasetName, manifest: Manifest, split: Split = _NO_SPLIT) -> DatasetContent:
    """Returns what is in the files of a version-to-be; those of an existing version are not read again.

    Raises:
        ServiceError: `NOT_FOUND`, `BLOB_MISSING`, `DIGEST_MISMATCH`, `INVALID_DATA`.
    """
    key = split_key(split)

    def look_up(connection: Connection) -> tuple[DatasetContent | None, dict[str, int]]:
        content = store.find_dataset_content(connection, name, manifest.digest, key)
        return content, blob_sizes(connection, name.project, [file.sha256 for file in manifest.files])

    known, sizes = await library.database.read(look_up)
    if known is not None:
        return known
    require_stored(manifest, sizes)

    async def read() -> examining.Found:
        async with library.fetched(manifest) as folder:
            order = {"kind": "examine", "split": [split.validation_ratio, split.seed]}
            return await library.check(examining.ask, folder, order)

    try:
        found = await library.examinations.share(f"{manifest.digest} {key}", read)
    except examining.Exhausted:
        found = _EXHAUSTED
    return conclude(manifest, split, found)


def conclude(manifest: Manifest, split: Split, found: examining.Found) -> DatasetContent:
    """Makes what is stored of what was found.

    Raises:
        ServiceError: `INVALID_DATA` with the faults, by file and line, e.g. `train.jsonl:17`.
    """
    if found["num_errors"]:
        raise _refused(found)
    return DatasetContent(
        manifest=manifest,
        shape=RowShape(found["shape"]),
        rows=found["statistics"]["rows"],
        split=split_key(split),
        record=wire.record_of(found, split).SerializeToString(),
    )


def _refused(found: examining.Found) -> ServiceError:
    errors = found["errors"]
    violations = [_violation(error, with_excerpt=len(errors) <= _MOST_EXCERPTS) for error in errors]
    error = invalid_fields(listed(violations, more=found["num_errors"] - len(errors)), reason=Reason.INVALID_DATA)
    codes = {each["code"] for each in errors}
    counts = {code: count for code, count in found["counts"].items() if code in codes}
    error.metadata["codes"] = ",".join(f"{code}={count}" for code, count in sorted(counts.items()))
    error.metadata["num_problems"] = str(found["num_errors"])
    return error


def _violation(error: dict[str, Any], *, with_excerpt: bool) -> FieldViolation:
    place = error["file"] or "manifest.files"
    place += f":{error['line']}" if error["line"] else ""
    field = f"{place}:{error['field']}" if error["field"] else place
    shown = f" There stands: `{error['excerpt']}`" if with_excerpt and error["excerpt"] else ""
    return FieldViolation(field, f"{error['message']} {error['cure']}{shown}", error["code"])
