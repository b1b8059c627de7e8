"""What the readers of several formats say alike."""

from tuneforge.data.formats.parsed import MIB, Limits
from tuneforge.data.problems import ProblemCode, RowFault, Severity


def bom_removed() -> RowFault:
    """Returns the remark that a file began with a byte order mark."""
    message = "The file begins with a byte order mark, which was passed over."
    return RowFault(ProblemCode.BOM_REMOVED, message, "Nothing needs to be done.", severity=Severity.INFO)


def nothing_in_it(cure: str = "Write one JSON object a line.") -> RowFault:
    """Returns the fault of a file without a row."""
    return RowFault(ProblemCode.DATASET_EMPTY, "There is no row in it.", cure)


def too_large(limits: Limits) -> RowFault:
    """Returns the fault of a row that is too large."""
    message = f"The line is longer than {limits.row_bytes / MIB:g} MiB."
    return RowFault(ProblemCode.ROW_TOO_LARGE, message, "Split it into several rows.")


def remark(code: ProblemCode, message: str, cure: str = "Nothing needs to be done.") -> RowFault:
    """Returns something that people should know and that is no fault."""
    return RowFault(code, message, cure, severity=Severity.INFO)
