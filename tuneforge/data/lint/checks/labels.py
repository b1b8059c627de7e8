"""Targets that are labels: how often each is there, and how each is written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final

from tuneforge.data.lint.check import Check, Code, Setting
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.problems import Severity

_MOST_LABELS: Final = 200
_LONGEST_LABEL: Final = 60
_ROWS_PER_LABEL: Final = 5
_LEAST_ROWS: Final = 20
_IMBALANCE: Final = 10


class Labels(Check):
    """Finds labels that are much rarer than others, spelt in several ways, or measured and never taught.

    Targets are taken for labels when the rows are of a shape with labels, or when there are at least 20 rows and on
    average five or more with each of at most 200 targets, none longer than 60 characters.

    LABEL_IMBALANCE, a warning: the commonest label has ten times the rows of the rarest, or more. Exact as to the
    numbers; the world may be like that. LABEL_SPELLING, a warning: labels that differ in case or white space only.
    UNTAUGHT_LABEL, an error: a label of validation rows that no training row has. SINGLE_LABEL, a warning: all rows
    have the same one.
    """

    name: ClassVar[str] = "labels"
    codes: ClassVar[Mapping[str, Code]] = {
        "LABEL_IMBALANCE": Code(
            severity=Severity.WARNING, cure="Add rows of the rare label, or weigh what is measured by label."
        ),
        "LABEL_SPELLING": Code(severity=Severity.WARNING, cure="Write one label in one way."),
        "UNTAUGHT_LABEL": Code(severity=Severity.ERROR, cure="Add training rows with it, or leave its rows out."),
        "SINGLE_LABEL": Code(severity=Severity.WARNING, cure="Add rows with other labels."),
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._counts: dict[Part, Counter[str]] = {part: Counter() for part in Part}
        self._is_open = dict.fromkeys(Part, True)
        self._is_label_shape = False

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Counts the target."""
        if self._is_open[subject.part]:
            self._is_label_shape |= subject.has_label
            counts = self._counts[subject.part]
            if len(subject.target) <= _LONGEST_LABEL or subject.has_label:
                counts[subject.target[: _LONGEST_LABEL + 1]] += 1
            else:
                self._is_open[subject.part] = False
            if len(counts) > _MOST_LABELS and not (subject.has_label and len(counts) <= 50 * _MOST_LABELS):
                self._is_open[subject.part] = False
            if not self._is_open[subject.part]:
                counts.clear()
        return ()

    def finish(self) -> Iterator[Finding]:
        """Compares the labels."""
        counts = self._counts[Part.TRAIN]
        if not self._are_labels(counts):
            return
        common, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
        rare, least = min(counts.items(), key=lambda item: (item[1], item[0]))
        if len(counts) == 1:
            yield self.found_in_all("SINGLE_LABEL", f"All {most} rows have the label {_shown(common)}.")
        elif most >= _IMBALANCE * least:
            message = f"The label {_shown(common)} has {most} rows, {_shown(rare)} has {least}."
            yield self.found_in_all("LABEL_IMBALANCE", message)
        spellings: dict[str, list[str]] = {}
        for label in sorted(counts):
            spellings.setdefault(" ".join(label.casefold().split()), []).append(label)
        for forms in spellings.values():
            if len(forms) > 1:
                message = f"The labels {', '.join(map(_shown, forms))} differ in case or white space only."
                yield self.found_in_all("LABEL_SPELLING", message)
        for label in sorted(set(self._counts[Part.VALIDATION]) - set(counts)):
            rows = self._counts[Part.VALIDATION][label]
            message = f"The label {_shown(label)} is in {rows} validation {'row' if rows == 1 else 'rows'} only."
            yield self.found_in_all("UNTAUGHT_LABEL", message, Part.VALIDATION)

    def _are_labels(self, counts: Counter[str]) -> bool:
        if self._is_label_shape:
            return bool(counts)
        rows = counts.total()
        return rows >= _LEAST_ROWS and rows >= _ROWS_PER_LABEL * len(counts)


def _shown(label: str) -> str:
    return repr(label[:_LONGEST_LABEL])
