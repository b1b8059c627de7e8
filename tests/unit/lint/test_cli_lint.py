"""`tuneforge datasets lint` and `preview` on files: what people read, what programs read, exit codes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.tiny_model import make_tiny_model
from tests.unit.lint import corpus
from tuneforge.cli.app import cli
from tuneforge.cli.lint import painted
from tuneforge.data.lint import CHECKS, PreviewToken, RowFate, RowPreview, TokenFate
from tuneforge.errors import InvalidArgument


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["datasets", *arguments])


@pytest.fixture(name="train")
def _train(tmp_path: Path) -> str:
    return str(corpus.write(tmp_path / "train.jsonl", corpus.TRAIN))


def test_findings_are_printed_and_errors_end_with_1(train: str) -> None:
    """Each finding has its place, its code and what to do; the counts come last; no secret is shown."""
    result = _run("lint", train)
    assert result.exit_code == 1
    assert "train.jsonl:2 " in result.output
    assert "error MALFORMED_JSON: It is not JSON" in result.output
    assert "warning SECRET (probable): It has what looks like an AWS access key, characters 11 to 30." in result.output
    assert "not run: template:" in result.output
    assert not any(secret in result.output for secret in corpus.SECRETS)


@pytest.mark.parametrize(
    ("rows", "fail_on", "code"),
    [(1, "error", 0), (12, "none", 0), (1, "info", 0), (11, "error", 1), (0, "error", 0), (0, "warning", 1)],
)
def test_the_exit_code_follows_fail_on(tmp_path: Path, rows: int, fail_on: str, code: int) -> None:
    """Only what is as bad as asked for, or worse, makes the command fail."""
    chosen = corpus.TRAIN[:rows] or tuple(row for row in corpus.TRAIN if row[0] == "bell")
    path = corpus.write(tmp_path / "rows.jsonl", chosen)
    assert _run("lint", str(path), "--fail-on", fail_on).exit_code == code


def test_json_is_one_object_a_line(train: str) -> None:
    """Programs get findings and then the summary."""
    lines = [json.loads(line) for line in _run("lint", train, "--json", "--fail-on", "none").output.splitlines()]
    assert set(lines[-1]) == {"summary"}
    assert lines[-1]["summary"]["findings"] == len(lines) - 1
    assert lines[0]["finding"]["code"] == "MALFORMED_JSON"
    assert len(lines[0]["finding"]["row_id"]) == 64


def test_one_configuration_of_a_folder_is_looked_at(tmp_path: Path) -> None:
    """The files that an upload would take: of --config or of the default; else those that there are are named."""
    card = (
        "---\nconfigs:\n- config_name: short\n  data_files: a.jsonl\n- config_name: long\n  data_files: b.jsonl\n---\n"
    )
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    assert "1 rows:" in _run("lint", str(tmp_path), "--config", "short").output
    assert "2 rows:" in _run("lint", str(tmp_path), "--config", "long").output
    with pytest.raises(InvalidArgument, match="there are short, long"):
        CliRunner().invoke(cli, ["datasets", "lint", str(tmp_path), "--config", "other"], catch_exceptions=False)
    with pytest.raises(InvalidArgument, match="choose one of short, long"):
        CliRunner().invoke(cli, ["datasets", "lint", str(tmp_path)], catch_exceptions=False)
    model = str(make_tiny_model(tmp_path / ".model"))
    second = ("preview", str(tmp_path), "--row", "2", "--model", model, "--plain")
    assert "[d<|im_end|>]" in _run(*second, "--config", "long").output
    assert "no row 2" in str(_run(*second, "--config", "short").exception)
    (tmp_path / "README.md").write_text(card.replace("long\n", "long\n  default: true\n"))
    assert "2 rows:" in _run("lint", str(tmp_path)).output
    for command in (("lint", "rows/3"), ("preview", "rows/3", "--row", "1", "--model", "tiny")):
        assert "--config is for a folder" in _run(*command, "--config", "short").output


def test_many_findings_of_a_code_are_shortened_unless_all_are_asked_for(tmp_path: Path) -> None:
    """Twenty of a code are shown, and how many there are beyond."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 40)
    assert "... and 19 more DUPLICATE_ROW" in _run("lint", str(path)).output
    assert _run("lint", str(path), "--all").output.count(" DUPLICATE_ROW:") == 39


def test_checks_are_chosen_and_mistakes_told(tmp_path: Path, train: str) -> None:
    """Unknown checks, missing files and models that are no folders are refused in a sentence."""
    assert "SECRET" not in _run("lint", train, "--no-check", "secrets").output
    assert _run("lint", train, "--check", "labels", "--fail-on", "none").exit_code == 0
    assert "typo" in str(_run("lint", train, "--check", "typo").exception)
    assert "not there" in str(_run("lint", str(tmp_path / "none.jsonl")).exception)
    assert "no folder" in _run("lint", train, "--model", "none").output


def test_checks_are_listed() -> None:
    """Every check has its name, its group, what it finds and its codes."""
    output = _run("lint", "--list-checks").output
    for name, check in CHECKS.items():
        assert f"{name} ({check.group}" in output
        assert check.__doc__
        assert all(code in check.__doc__ and code in output for code in check.codes)


def test_a_row_is_drawn_in_plain_form_and_as_json(tmp_path: Path, train: str) -> None:
    """What is learned stands in brackets, what is cut off in braces."""
    model = str(make_tiny_model(tmp_path / "model"))
    plain = _run("preview", train, "--row", "1", "--model", model)
    assert plain.exit_code == 0
    assert "[Under the mat by the door.<|im_end|>]" in plain.output
    assert "46 tokens, 19 learned, 0 cut off" in plain.output
    cut = _run("preview", train, "--row", "13", "--model", model, "--max-tokens", "80", "--overlong", "truncate")
    assert "truncated: 168 tokens" in cut.output
    assert "]{" in cut.output
    split = _run("preview", train, "--row", "13", "--model", model, "--max-tokens", "80", "--overlong", "split")
    assert (split.exit_code, "168 tokens" in split.output, "{" in split.output.partition("\n")[2]) == (0, True, False)
    drawn = json.loads(_run("preview", train, "--row", "1", "--model", model, "--json").output)
    assert sum(token["fate"] == "LEARNED" for token in drawn["tokens"]) == 19
    by_id = _run("preview", train, "--row", drawn["row_id"][:8], "--model", model, "--json")
    assert json.loads(by_id.output) == drawn
    assert "no row 99" in str(_run("preview", train, "--row", "99", "--model", model).exception)


def test_either_answer_of_a_pair_is_drawn(tmp_path: Path) -> None:
    """The chosen one, or on request the rejected one; both read the prompt."""
    path, model = tmp_path / "pairs.jsonl", str(make_tiny_model(tmp_path / "model"))
    path.write_text('{"prompt": "Say cat:", "chosen": " cat", "rejected": " dog"}\n')
    chosen = _run("preview", str(path), "--row", "1", "--model", model)
    assert "Say cat:[ cat<|im_end|>]" in chosen.output
    rejected = _run("preview", str(path), "--row", "1", "--model", model, "--rejected")
    assert "Say cat:[ dog<|im_end|>]" in rejected.output


def test_learned_tokens_are_green() -> None:
    """In colour, learned is green and cut is red, each line by itself; control characters do not reach a terminal."""
    tokens = (
        PreviewToken(id=1, text="ask\n", fate=TokenFate.READ),
        PreviewToken(id=2, text="say\n", fate=TokenFate.LEARNED),
        PreviewToken(id=3, text="on\x1b", fate=TokenFate.LEARNED),
        PreviewToken(id=4, text="off", fate=TokenFate.CUT),
    )
    drawn = RowPreview(row_id="a" * 64, file="f", line=1, fate=RowFate.TRUNCATED, tokens=tokens, template_sha256="")
    coloured = painted(drawn, is_plain=False)
    assert "\x1b[32m\x1b[1msay\x1b[0m\n\x1b[32m\x1b[1mon\N{REPLACEMENT CHARACTER}\x1b[0m" in coloured
    assert "\x1b[31m" in coloured.partition("off")[0].rpartition("\x1b[0m")[2]
    assert painted(drawn, is_plain=True) == "ask\n[say\non\N{REPLACEMENT CHARACTER}]{off}"


def test_the_messy_example_has_the_faults_that_it_shows() -> None:
    """What the documentation tells people to try gives the findings that it shows."""
    folder = Path(__file__).parents[3] / "examples" / "messy_rows"
    result = _run("lint", str(folder / "train.jsonl"), "--validation", str(folder / "validation.jsonl"), "--json")
    assert result.exit_code == 1
    summary = json.loads(result.output.splitlines()[-1])["summary"]
    assert summary["by_code"] == {
        "BAD_CONVERSATION": 1,
        "CONFLICTING_TARGETS": 1,
        "CONTROL_TOKEN_TEXT": 1,
        "DUPLICATE_ROW": 1,
        "EMPTY_TARGET": 1,
        "INVISIBLE_CHARACTER": 1,
        "LEAKED_ROW": 1,
        "MALFORMED_JSON": 1,
        "MOJIBAKE": 1,
        "NEAR_DUPLICATE": 1,
        "PERSONAL_DATA": 2,
    }
