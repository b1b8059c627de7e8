"""Pages of the rows of a version, read from its files by the examiner."""

import re

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.pages import Page, next_token, page_of
from services.registry.datasets import examining, wire
from services.registry.datasets.resources import DatasetVersion
from services.registry.library import Library
from tuneforge.data.split import Side
from tuneforge.v1 import datasets_pb2, rows_pb2

_PREFIX = re.compile(r"([0-9a-f]{4,64})?")


def page_of_rows(request: rows_pb2.ListDatasetRowsRequest) -> Page:
    """Reads which rows are wanted.

    Raises:
        ServiceError: `INVALID_FIELD`, `INVALID_PAGE_TOKEN`.
    """
    violations = []
    if request.side not in rows_pb2.SplitSide.DESCRIPTOR.values_by_number:
        violations.append(FieldViolation("side", f"is {request.side}; give TRAIN, VALIDATION or TEST"))
    if not _PREFIX.fullmatch(request.row_id_prefix):
        found = f"is {request.row_id_prefix[:80]!r}; give 4 to 64 hexadecimal digits in lower case"
        violations.append(FieldViolation("row_id_prefix", found))
    if violations:
        raise invalid_fields(violations)
    scope = f"ListDatasetRows {request.parent} {request.side} {request.row_id_prefix}"
    return page_of(request.page_size, request.page_token, scope=scope)


async def list_rows(
    library: Library, version: DatasetVersion, request: rows_pb2.ListDatasetRowsRequest, page: Page
) -> rows_pb2.ListDatasetRowsResponse:
    """Returns a page of rows.

    Raises:
        ServiceError: `INVALID_DATA` when the rows can no longer be read within the limits.
    """
    split = datasets_pb2.DatasetVersion.FromString(version.content.record).split
    order = {
        "kind": "rows",
        "split": [split.validation_ratio, split.seed],
        "after": page.after_number(0),
        "size": page.size,
        "side": Side(_word(request.side)).value if request.side else "",
        "prefix": request.row_id_prefix,
    }
    async with library.fetched(version.content.manifest) as folder:
        try:
            found = await library.check(examining.ask, folder, order)
        except examining.Exhausted:
            message = f"the rows of {version.name} take too much memory or time to read"
            raise ServiceError(Reason.INVALID_DATA, message) from None
    passed = found["passed"]
    token = next_token(page.scope, str(passed)) if passed >= 0 else ""
    return rows_pb2.ListDatasetRowsResponse(rows=map(wire.row_to_proto, found["rows"]), next_page_token=token)


def _word(side: int) -> str:
    return str(rows_pb2.SplitSide.DESCRIPTOR.values_by_number[side].name).removeprefix("SPLIT_SIDE_")
