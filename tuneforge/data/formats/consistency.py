"""What rows of one data set must have in common, and what is said once about all of them."""

from collections.abc import Iterator

from tuneforge.data.formats.remarks import remark
from tuneforge.data.problems import ProblemCode, RowFault
from tuneforge.data.shapes import Recognition, RowShape
from tuneforge.data.shapes.labelled import kind_of_label


class Consistency:
    """What the rows so far were like."""

    def __init__(self) -> None:
        self._shape: RowShape | None = None
        self._label_kind = ""
        self._said: set[Recognition] = set()

    def check(self, recognition: Recognition, content: dict[str, object]) -> None:
        """Raises when a row is unlike those before it.

        Raises:
            RowFault: it has another shape, or a label of another kind.
        """
        shape = recognition.shape
        if shape is not self._shape:
            if self._shape is not None:
                message = f"Its shape is {shape}, but the rows before it are {self._shape}."
                raise RowFault(ProblemCode.MIXED_SHAPES, message, "Keep each shape in a data set of its own.")
            self._shape = shape
        if "label" in content:
            kind = kind_of_label(content["label"])
            if kind != self._label_kind:
                if self._label_kind:
                    message = f"The label is {kind}, but that of the rows before it is {self._label_kind}."
                    cure = "Give all labels as texts or all as numbers."
                    raise RowFault(ProblemCode.TYPE_MISMATCH, message, cure, field="label")
                self._label_kind = kind

    def remarks(self, recognition: Recognition) -> Iterator[RowFault]:
        """Yields what is to be said of rows with these columns, once."""
        if recognition in self._said:
            return
        if len(self._said) < 64:
            self._said.add(recognition)
        for name, meant in recognition.renamed:
            message = f"The column `{name[:60]}` is read as `{meant}`."
            yield remark(ProblemCode.COLUMN_RENAMED, message, f"Rename it to `{meant}` if that is meant.")
        if recognition.ignored:
            names = ", ".join(f"`{name[:40]}`" for name in recognition.ignored[:8])
            more = f" and {len(recognition.ignored) - 8} more" if len(recognition.ignored) > 8 else ""
            noun = "column is" if len(recognition.ignored) == 1 else "columns are"
            yield remark(ProblemCode.COLUMNS_IGNORED, f"The {noun} not read: {names}{more}.")
