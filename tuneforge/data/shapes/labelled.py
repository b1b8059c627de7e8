"""Texts and images with a label."""

import math
from typing import Any, Final

from tuneforge.data.problems import ProblemCode, RowFault, kind_of
from tuneforge.data.shapes.texts import target_of

_NOT_A_LABEL: Final = frozenset({"nan", "none", "null", "n/a", "inf", "-inf", "infinity"})


def read_text_label(row: dict[str, Any]) -> dict[str, Any]:
    """Reads `text` and `label`.

    Raises:
        RowFault: the first fault found.
    """
    return {"text": target_of(row["text"], "text"), "label": label_of(row["label"])}


def label_of(value: Any) -> str | int | float:
    """Returns a label: a text, a class number from 0, or a finite number.

    Raises:
        RowFault: it is none of these.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        label = value.strip()
        if not label or label.lower() in _NOT_A_LABEL:
            said = "empty" if not label else f'"{label[:20]}", which stands for a missing value'
            raise RowFault(ProblemCode.BAD_LABEL, f"The label is {said}.", "Leave the row out.", field="label")
        return label
    if isinstance(value, int):
        if value < 0:
            message = f"The label is {value}; classes count from 0."
            raise RowFault(ProblemCode.BAD_LABEL, message, "Leave the row out.", field="label")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RowFault(ProblemCode.BAD_LABEL, f"The label is {value}.", "Leave the row out.", field="label")
        return value
    message = f"The label is {kind_of(value)}."
    raise RowFault(ProblemCode.BAD_LABEL, message, "Give a text or a number.", field="label")


def kind_of_label(label: Any) -> str:
    """Returns what kind of label this is: one data set has one kind."""
    return "a text" if isinstance(label, str) else "a number"
