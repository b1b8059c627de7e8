"""What a model makes of rows: the trainer's labels are the preview's learned tokens, and every fault has its code."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.trainer.engine.corpus import read_corpus
from tests.support.tiny_model import make_tiny_model
from tests.unit.data import templates
from tests.unit.lint import corpus
from tuneforge.data.formats import open_rows
from tuneforge.data.lint import (
    Finding,
    LengthPolicy,
    LintOptions,
    RowFate,
    RowPreview,
    Rows,
    Summary,
    TextModel,
    TokenFate,
    lint,
    preview,
)
from tuneforge.data.masks import encode_all
from tuneforge.data.rows import to_row
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.specs.spec import OverlongPolicy

POLICIES = [
    (60, OverlongPolicy.TRUNCATE),
    (60, OverlongPolicy.DROP),
    (28, OverlongPolicy.TRUNCATE),
    (1000, OverlongPolicy.REFUSE),
]
ROWS: tuple[dict[str, Any], ...] = (
    corpus.chat("Where is the key?", "Under the mat by the door."),
    corpus.chat("Tell of the keeper.", corpus.LONG, system="Be brief."),
    corpus.chat("Zürich \U0001f600?", "Ja, \u4e2d\u6587 \U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301."),
    corpus.chat("xyz " * 30, "b"),
)
PLAIN: tuple[dict[str, Any], ...] = (
    {"prompt": "the user", "completion": " the answer"},
    {"prompt": "", "completion": "from nothing"},
    {"prompt": "the " * 50, "completion": "end"},
)


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def _write(path: Path, rows: tuple[dict[str, Any], ...]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _previews(path: Path, model: TextModel, policy: LengthPolicy) -> list[RowPreview]:
    rows = open_rows({path.name: path})
    return [preview(to_row(row), model.tokenizer, model.chat_format, policy, row.file) for row in rows]


@pytest.mark.parametrize(("max_tokens", "overlong"), POLICIES)
@pytest.mark.parametrize("rows", [ROWS, PLAIN, ({"text": "All of this is learned."},)], ids=["chat", "plain", "text"])
def test_the_trainers_labels_are_the_previews_learned_tokens(
    tmp_path: Path, model: Path, rows: tuple[dict[str, Any], ...], max_tokens: int, overlong: OverlongPolicy
) -> None:
    """For every row that the trainer keeps, tokens and labels are those that the preview draws; it keeps no other."""
    path, text_model = _write(tmp_path / "rows.jsonl", rows), TextModel.load(model)
    drawn = _previews(path, text_model, LengthPolicy(max_tokens=max_tokens, overlong=overlong))
    encode_row = partial(
        encode_all,
        tokenizer=load_tokenizer(model),
        chat_format=text_model.chat_format,
        max_tokens=max_tokens,
        overlong=overlong,
    )
    learned = read_corpus([path], encode_row, check_stop=lambda: None)
    kept = [each for each in drawn if each.fate in {RowFate.KEPT, RowFate.TRUNCATED} and each.labels]
    assert [each.id for each in learned.examples] == [each.row_id for each in kept]
    for example, each in zip(learned.examples, kept, strict=True):
        tokens = [token.id for token in each.tokens if token.fate is not TokenFate.CUT]
        assert example.tokens_T.tolist() == tokens
        assert example.labels_S.tolist() == list(each.labels)
    assert learned.cut == sum(each.fate is RowFate.TRUNCATED for each in drawn)
    assert learned.dropped == sum(each.fate is RowFate.DROPPED for each in drawn)


@pytest.mark.parametrize("rows", [ROWS, PLAIN], ids=["chat", "plain"])
def test_the_pieces_of_a_preview_are_the_text_that_the_model_reads(
    tmp_path: Path, model: Path, rows: tuple[dict[str, Any], ...]
) -> None:
    """Nothing is lost, doubled or moved between tokens, characters of several tokens included."""
    text_model = TextModel.load(model)
    path = _write(tmp_path / "rows.jsonl", rows)
    for parsed, drawn in zip(
        open_rows({path.name: path}), _previews(path, text_model, LengthPolicy(max_tokens=1000)), strict=True
    ):
        rendering = text_model.chat_format.render_row(to_row(parsed))
        assert "".join(token.text for token in drawn.tokens) == rendering.text
        learned = "".join(token.text for token in drawn.tokens if token.fate is TokenFate.LEARNED)
        expected = "".join(rendering.text[start:end] for start, end in rendering.supervised)
        begins_at_once = rendering.supervised[0][0] == 0  # what the first token says, nothing stands before to predict
        assert learned == (expected[len(drawn.tokens[0].text) :] if begins_at_once else expected)


def _lint(path: Path, model: TextModel, policy: LengthPolicy) -> tuple[list[Finding], Summary]:
    items = list(lint(Rows(files={path.name: path}), LintOptions(only=("tokens",), length=policy), model))
    summary = items[-1]
    assert isinstance(summary, Summary)
    return [item for item in items if isinstance(item, Finding)], summary


def test_lengths_are_counted_under_every_policy(tmp_path: Path, model: Path) -> None:
    """Dropped, cut, masked and refused rows are told and counted."""
    path, text_model = _write(tmp_path / "rows.jsonl", ROWS), TextModel.load(model)
    lengths = sorted(len(each.tokens) for each in _previews(path, text_model, LengthPolicy(max_tokens=1000)))
    findings, summary = _lint(path, text_model, LengthPolicy(max_tokens=60, overlong=OverlongPolicy.TRUNCATE))
    assert [(each.code, each.severity.value, each.line) for each in findings] == [
        ("OVERLONG_ROW", "WARNING", 2),
        ("OVERLONG_ROW", "WARNING", 3),
        ("ALL_MASKED", "ERROR", 4),
    ]
    assert summary.tokens is not None
    assert (summary.tokens.rows, summary.tokens.tokens, summary.tokens.longest) == (4, sum(lengths), lengths[-1])
    assert (summary.tokens.dropped, summary.tokens.truncated) == (1, 2)
    assert summary.tokens.p50 == lengths[1]
    findings, summary = _lint(path, text_model, LengthPolicy(max_tokens=60))
    assert {each.code for each in findings} == {"OVERLONG_ROW"}
    findings, summary = _lint(path, text_model, LengthPolicy(max_tokens=60, overlong=OverlongPolicy.REFUSE))
    assert {each.severity.value for each in findings} == {"ERROR"}


def test_when_nothing_is_left_it_is_said_once(tmp_path: Path, model: Path) -> None:
    """A data set of which every row is too long has nothing to learn."""
    findings, summary = _lint(_write(tmp_path / "rows.jsonl", ROWS), TextModel.load(model), LengthPolicy(max_tokens=5))
    assert [each.code for each in findings].count("NOTHING_TO_LEARN") == 1
    assert summary.tokens is not None
    assert (summary.tokens.dropped, summary.tokens.supervised) == (4, 0)


@pytest.mark.parametrize(
    ("template", "rows", "code"),
    [
        (templates.GEMMA, (corpus.chat("a", "b", system="c"),), "TEMPLATE_REFUSES"),
        ("{{ messages[0].content / 2 }}", (corpus.chat("a", "b"),), "TEMPLATE_FAILS"),
        ("{{ messages[0].content }}<|im_end|>", (corpus.chat("a", "b"),), "TURN_DROPPED"),
        (
            "{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}",
            (corpus.chat("a", "b"),),
            "TURN_REWRITTEN",
        ),
        ("{% for m in messages %}{{ m.content }};{% endfor %}", (corpus.chat("a", "b"),), "NO_END_TOKEN"),
        (templates.SMOLLM2, (corpus.chat("<|im_start|>", "b"),), "CONTROL_TOKEN"),
        ("{% if %}", (corpus.chat("a", "b"), corpus.chat("c", "d")), "TEMPLATE_INVALID"),
        (None, (corpus.chat("a", "b"), corpus.chat("c", "d")), "NO_CHAT_TEMPLATE"),
    ],
)
def test_faults_of_templates_have_their_codes(
    tmp_path: Path, template: str | None, rows: tuple[dict[str, Any], ...], code: str
) -> None:
    """Each way in which a template cannot write a row is told by its code; a fault of the model itself once."""
    model = make_tiny_model(tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    findings, _ = _lint(_write(tmp_path / "rows.jsonl", rows), TextModel.load(model), LengthPolicy(max_tokens=99))
    assert [each.code for each in findings] == [code]
    assert findings[0].severity.value == "ERROR"


def test_plain_rows_are_held_against_the_models_own_control_tokens(tmp_path: Path, model: Path) -> None:
    """With a model, exactly its control tokens are told, and not those of other families."""
    path = _write(
        tmp_path / "rows.jsonl",
        ({"prompt": "a <|im_end|>", "completion": "b"}, {"prompt": "a [INST]", "completion": "c"}),
    )
    items = lint(Rows(files={path.name: path}), LintOptions(only=("control-tokens",)), TextModel.load(model))
    (finding,) = [item for item in items if isinstance(item, Finding)]
    assert (finding.code, finding.line, finding.is_probable) == ("CONTROL_TOKEN_TEXT", 1, False)
