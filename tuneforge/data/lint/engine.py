"""The pass over the rows: one reading, all checks, findings as they come, one summary at the end."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tuneforge.data.examination import side_in
from tuneforge.data.formats import ParsedRow, open_rows
from tuneforge.data.lint.check import Check, Setting
from tuneforge.data.lint.checks import ROWS, chosen
from tuneforge.data.lint.findings import SEVERITIES, Finding, Part, Summary
from tuneforge.data.lint.ledger import Ledger
from tuneforge.data.lint.options import LintOptions, TextModel
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.lint.text_patterns import personal_data, secrets
from tuneforge.data.lint.tokens import TokenTally, tokenize
from tuneforge.data.problems import RowProblem, Severity
from tuneforge.data.rows import to_rows
from tuneforge.data.shapes import LEARNABLE
from tuneforge.data.split import Side, Split

_HELD_OUT: Final = frozenset({"validation", "test"})


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a lint has come."""

    rows: int
    """Rows that were read, of both parts."""
    file: str
    """The file that is being read; empty while rows are compared with each other."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What is linted."""

    files: Mapping[str, Path]
    """Path in the data set -> where its bytes are. Files that are named as validation or test files are those."""
    validation: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """The same for a validation set of its own."""
    split: Split | None = None
    """How the rows of `files` are divided when the run divides them; None for files that are all trained on."""


def lint(
    rows: Rows, options: LintOptions | None = None, model: TextModel | None = None
) -> Iterator[Finding | Progress | Summary]:
    """Looks at every row of a data set.

    The same rows in another order give the same findings, file and line apart, as long as no code has more than
    `most_listed` and no more rows come than are remembered.

    Args:
        rows: what is linted.
        options: what is looked for; None for everything.
        model: the model whose tokenizer and chat template are used; without one, checks that need it are skipped.

    Yields:
        Findings as they come, progress between them, the summary at last.

    Raises:
        UnknownCheck: `options` name a check that there is not.
    """
    return _Lint(rows, options or LintOptions(), model).run()


class _Lint:
    """One pass."""

    def __init__(self, rows: Rows, options: LintOptions, model: TextModel | None) -> None:
        self._rows, self._options, self._model = rows, options, model
        self._ledger = Ledger(options.most_remembered)
        setting = Setting(options=options, ledger=self._ledger, model=model)
        asked = chosen(options)
        self._checks = [check(setting) for check in asked if model is not None or not check.needs_model]
        self._skipped = {
            check.name: "It needs a model's tokenizer and chat template."
            for check in asked
            if model is None and check.needs_model
        }
        self._looks = [check.look for check in self._checks if type(check).look is not Check.look]
        self._token_looks = [check.look_at_tokens for check in self._checks if check.needs_model]
        self._tally = TokenTally() if model is not None else None
        self._counts: Counter[str] = Counter()
        self._severities: Counter[str] = Counter()
        self._seen: Counter[Part] = Counter()
        self._malformed = 0

    def run(self) -> Iterator[Finding | Progress | Summary]:
        every, number = self._options.progress_every, 0
        for part, parsed in self._read():
            if number % every == 0:
                yield Progress(number, parsed.file)
            number += parsed.line > 0
            if found := self._about(part, parsed):
                yield from self._listed(found)
        yield Progress(number, "")
        for check in self._checks:
            yield from self._listed(sorted(check.finish(), key=lambda finding: finding.identity))
        yield from self._listed(self._about_limits())
        yield self._summary()

    def _read(self) -> Iterator[tuple[Part, ParsedRow]]:
        split = self._rows.split or Split()
        for parsed in open_rows(self._rows.files):
            is_held_out = parsed.content is not None and side_in(parsed, split) is not Side.TRAIN
            yield Part.VALIDATION if is_held_out or parsed.part in _HELD_OUT else Part.TRAIN, parsed
        for parsed in open_rows(self._rows.validation) if self._rows.validation else ():
            yield Part.VALIDATION, parsed

    def _about(self, part: Part, parsed: ParsedRow) -> list[Finding]:
        is_row = parsed.line > 0
        self._seen[part] += is_row
        found = [_of_problem(problem, parsed, part) for problem in parsed.problems]
        if parsed.content is None or (parsed.problems and not parsed.is_usable):
            self._malformed += is_row and any(each.severity is Severity.ERROR for each in parsed.problems)
            return found
        subject = Subject(parsed, part)
        self._ledger.add(subject)
        for look in self._looks:
            found.extend(look(subject))
        if self._model is not None and parsed.shape in LEARNABLE:
            row = tokenize(subject, to_rows(parsed), self._model, self._options.length)
            if self._tally is not None:
                self._tally.add(row)
            for look_at_tokens in self._token_looks:
                found.extend(look_at_tokens(row))
        return found

    def _about_limits(self) -> Iterator[Finding]:
        if self._ledger.is_full:
            yield Finding(
                code="NOT_ALL_COMPARED",
                severity=Severity.INFO,
                check=ROWS,
                message=f"Only the first {len(self._ledger)} different rows were compared with each other.",
                cure="Lint the data set in parts, or let more rows be remembered.",
            )

    def _listed(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Counts findings and lets those through that are within the limit for their code."""
        for finding in findings:
            self._counts[finding.code] += 1
            self._severities[finding.severity] += 1
            if self._counts[finding.code] <= self._options.most_listed:
                yield finding

    def _summary(self) -> Summary:
        most = self._options.most_listed
        return Summary(
            rows=self._seen[Part.TRAIN],
            validation_rows=self._seen[Part.VALIDATION],
            malformed=self._malformed,
            findings=self._counts.total(),
            by_severity={severity.value: self._severities[severity] for severity in SEVERITIES},
            by_code=dict(sorted(self._counts.items())),
            not_listed={code: count - most for code, count in sorted(self._counts.items()) if count > most},
            checks=(ROWS, *(check.name for check in self._checks)),
            skipped=self._skipped,
            tokens=self._tally.counts() if self._tally is not None else None,
        )


def _of_problem(problem: RowProblem, parsed: ParsedRow, part: Part) -> Finding:
    """Makes a finding of what the reader says, without what it quotes when that may be a secret."""
    message = problem.message
    if any(secrets(message)) or any(personal_data(message)):
        message = "Its value is not shown here: it looks like a secret or personal data."
    return Finding(
        code=str(problem.code) or "MALFORMED_ROW",
        severity=Severity(problem.severity),
        check=ROWS,
        message=message,
        cure=problem.cure,
        part=part,
        row_id=parsed.row_id,
        file=parsed.file,
        line=problem.line,
        field=problem.field,
    )
