"""Every seeded fault is found where it is, nothing else is, and no secret is ever shown."""

import dataclasses
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.lint import corpus
from tuneforge.data.lint import Finding, LintOptions, Progress, Rows, Severity, Summary, UnknownCheck, lint


def _lint(rows: Rows, options: LintOptions | None = None) -> tuple[list[Finding], Summary]:
    items = list(lint(rows, options))
    summary = items[-1]
    assert isinstance(summary, Summary)
    return [item for item in items if isinstance(item, Finding)], summary


@pytest.fixture(name="rows")
def _rows(tmp_path: Path) -> Rows:
    train = corpus.write(tmp_path / "train.jsonl", corpus.TRAIN)
    validation = corpus.write(tmp_path / "validation.jsonl", corpus.VALIDATION)
    return Rows(files={"train.jsonl": train}, validation={"validation.jsonl": validation})


def test_exactly_the_seeded_faults_are_found(rows: Rows) -> None:
    """Each fault has its finding at its row and place; nothing else is found."""
    findings, summary = _lint(rows)
    once = {code for code, _ in corpus.ONCE}
    found = {(each.code, each.file, each.line, each.field) for each in findings if each.code not in once}
    assert found == corpus.expected()
    for code, names in corpus.ONCE:
        (finding,) = [each for each in findings if each.code == code]
        assert finding.line in corpus.lines_of(names)
    assert summary.findings == len(findings)
    assert summary.by_code == dict(sorted(Counter(each.code for each in findings).items()))
    assert (summary.rows, summary.validation_rows) == (len(corpus.TRAIN), len(corpus.VALIDATION))
    assert summary.malformed == 9
    assert summary.fails(Severity.ERROR)
    assert set(summary.skipped) == {"template", "length"}


def test_no_finding_shows_a_secret(rows: Rows) -> None:
    """Neither a secret nor personal data stands in anything that the linter says."""
    findings, summary = _lint(rows)
    said = repr(findings) + repr(summary)
    assert [secret for secret in corpus.SECRETS if secret in said] == []
    assert not any("sk-" in each.message for each in findings)


def test_the_order_of_rows_changes_nothing_but_lines(rows: Rows, tmp_path: Path) -> None:
    """Shuffled rows have the same ids, and the same findings apart from file and line."""
    findings, summary = _lint(rows)
    shuffled = list(corpus.TRAIN)
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        train = corpus.write(tmp_path / f"shuffled{seed}.jsonl", tuple(shuffled))
        others, other_summary = _lint(dataclasses.replace(rows, files={"a.jsonl": train}))
        assert sorted(each.identity for each in others) == sorted(each.identity for each in findings)
        assert other_summary == summary


def test_findings_come_while_rows_are_read(tmp_path: Path) -> None:
    """A fault of the first row is told before the last row was looked at."""
    path = tmp_path / "train.jsonl"
    path.write_text("{\n" + '{"prompt": "a", "completion": "b"}\n' * 50)
    kinds = [type(item) for item in lint(Rows(files={"train.jsonl": path}), LintOptions(progress_every=10))]
    assert kinds.index(Finding) < [place for place, kind in enumerate(kinds) if kind is Progress][1]


def test_findings_above_the_limit_are_counted(tmp_path: Path) -> None:
    """Of each code only so many are listed; the summary says how many are not."""
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 50)
    findings, summary = _lint(Rows(files={"train.jsonl": path}), LintOptions(most_listed=5))
    assert [each.code for each in findings].count("DUPLICATE_ROW") == 5
    assert summary.by_code["DUPLICATE_ROW"] == 49
    assert summary.not_listed == {"DUPLICATE_ROW": 44}


def test_checks_are_switched_by_name_and_group(rows: Rows) -> None:
    """What is switched off finds nothing; unknown names are refused, all at once."""
    _, privacy = _lint(rows, LintOptions(only=("privacy",), without=("secrets",)))
    assert privacy.checks == ("rows", "personal-data")
    assert "SECRET" not in privacy.by_code
    assert privacy.by_code["PERSONAL_DATA"] == 5
    with pytest.raises(UnknownCheck, match=r"'typo', 'other'"):
        _lint(rows, LintOptions(only=("typo",), without=("other",)))


def test_rows_that_cannot_be_remembered_are_told(tmp_path: Path) -> None:
    """Beyond the limit rows are still checked alone, and it is said that they were not compared."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"prompt": "a{n}", "completion": "b\\u200b"}}\n' for n in range(30)))
    _, summary = _lint(Rows(files={"train.jsonl": path}), LintOptions(most_remembered=10))
    assert summary.by_code["NOT_ALL_COMPARED"] == 1
    assert summary.by_code["INVISIBLE_CHARACTER"] == 30
