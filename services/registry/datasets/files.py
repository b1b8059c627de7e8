"""Reads the rows of a data set version's files, each blob once however often it is asked for.

The rules for a row are in `tuneforge.data.rows`; here the reports on several files become one answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.grpckit.errors import FieldViolation, Reason, invalid_fields
from services.registry.datasets.resources import DatasetContent, RowShape
from services.registry.manifests import listed
from tuneforge.manifest import Manifest

if TYPE_CHECKING:
    from tuneforge.data.rows import FileReport

MOST_PROBLEMS = 20
"""Problems listed for one file; who has more has made one mistake many times."""


def read_file(path: Path) -> "FileReport":
    """Reads one file whole and reports on its rows; takes long for large files, so run it in a thread."""
    from tuneforge.data.rows import check_file

    return check_file(path, limit=MOST_PROBLEMS)


def conclude(manifest: Manifest, reports: Sequence["FileReport"]) -> DatasetContent:
    """Puts the reports on all files together.

    Args:
        manifest: The files.
        reports: What was found in each of them, in the order of the manifest.

    Raises:
        ServiceError: `INVALID_DATA` with the malformed lines of all files, as `train.jsonl:17`.
    """
    violations: list[FieldViolation] = []
    unlisted = 0
    for file, report in zip(manifest.files, reports, strict=True):
        unlisted += report.num_problems - len(report.problems)
        for problem in report.problems:
            place = file.path + (f":{problem.line}" if problem.line else "")
            field = f"{place}:{problem.field}" if problem.field else place
            violations.append(FieldViolation(field, f"{problem.message} {problem.cure}"))
    shapes = {report.shape: file.path for file, report in zip(manifest.files, reports, strict=True) if report.shape}
    if len(shapes) > 1:
        described = ", ".join(f"{path} has {shape}" for shape, path in shapes.items())
        violations.append(
            FieldViolation("manifest.files", f"The files have rows of different shapes: {described}. Give one shape.")
        )
    if violations:
        raise invalid_fields(listed(violations, more=unlisted), reason=Reason.INVALID_DATA)
    return DatasetContent(
        manifest=manifest, shape=RowShape(next(iter(shapes)).value), rows=sum(report.rows for report in reports)
    )
