"""Reference cases of the command that checks what a run left: 003-19 to 003-24."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import make_tiny_model
from tuneforge.manifest import build
from tuneforge.one_shot import validation
from tuneforge.one_shot.validation import ValidationRequest, check_checkpoint, read_prompts

ROOT = Path(__file__).parents[3]
PROFILE = {"model_id": "x-finetuned", "base_model_id": "x", "fine_tuning_method": "full", "memory_gb": 1.0}


def validate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `tuneforge validate`."""
    command = [sys.executable, "-m", "tuneforge.cli", "validate", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def make_checkpoint(folder: Path) -> Path:
    """Writes the files of a checkpoint."""
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"\0" * 100)
    (folder / "state.json").write_text("{}")
    (folder / "manifest.json").write_bytes(build(folder, exclude=["manifest.json"]).to_json().encode())
    return folder


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What a run left: a model, its documents, a checkpoint, and test rows."""
    make_tiny_model(tmp_path)
    (tmp_path / "training_info.json").write_text(json.dumps({"model_id": "x", "results": {"train_loss": 1.25}}))
    (tmp_path / "aim_profile.json").write_text(json.dumps(PROFILE))
    make_checkpoint(tmp_path / "checkpoint-7")
    make_checkpoint(tmp_path / "checkpoint-12")
    rows = [{"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def everything(folder: Path) -> list[str | Path]:
    """Returns all flags for a folder."""
    return [
        *("--training-info", folder / "training_info.json", "--model-path", folder, "--checkpoint-path", folder),
        *("--profile-path", folder / "aim_profile.json", "--test-dataset", folder / "test.jsonl"),
    ]


@pytest.mark.parametrize("case", ["003-19-20"])
def test_all_four_checks_really_run(finished: Path, case: str) -> None:
    """Exit code 0, a line for each, the count; and the same as JSON with every field."""
    done = validate(*everything(finished), "--output", finished / "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["aim_profile", "checkpoint_integrity", "model_output", "training_loss"]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("PASS")] == names
    assert "score 1.2500" in done.stdout
    assert "Summary: 4/4 checks passed" in done.stdout
    report: dict[str, Any] = json.loads((finished / "report.json").read_text())
    assert report["passed"] is True
    assert [check["check_name"] for check in report["checks"]] == names
    assert all(check.keys() >= {"passed", "score", "message", "details"} for check in report["checks"])
    assert report["checks"][2]["details"] == {"prompts": "2", "answered": "2"}
    assert report["checks"][1]["details"]["path"].endswith("checkpoint-12")


@pytest.mark.parametrize("case", ["003-22"])
def test_answers_without_a_wanted_word_fail(finished: Path, case: str) -> None:
    """Exit code 1 and 3 of 4."""
    (finished / "test.jsonl").write_text('{"prompt": "a", "keywords": ["no such word"]}\n')
    done = validate(*everything(finished))
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL")] == ["model_output"]
    assert "Summary: 3/4 checks passed" in done.stdout


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        pytest.param(("training_info.json", '{"results": {"train_loss": 10.5}}'), "training_loss", id="003-21"),
        pytest.param(("training_info.json", '{"results": {"train_loss": NaN}}'), "training_loss", id="003-21-nan"),
        pytest.param(("training_info.json", "{}"), "training_loss", id="003-21-none"),
        pytest.param(("checkpoint-12/state.json", "{"), "checkpoint_integrity", id="003-23"),
        pytest.param(("aim_profile.json", "{not json"), "aim_profile", id="003-24"),
        pytest.param(("aim_profile.json", '{"model_id": "x"}'), "aim_profile", id="003-24-fields"),
    ],
)
def test_one_bad_file_fails_its_check_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], failing: str
) -> None:
    """The others pass; where no services are installed, answers that nobody asked for are told as not made."""
    monkeypatch.setattr(validation, "are_installed", lambda: False)
    (finished / change[0]).write_text(change[1])
    request = ValidationRequest(
        training_info=finished / "training_info.json",
        model=finished,
        checkpoint=finished,
        profile=finished / "aim_profile.json",
    )
    checks, not_run = validation.validate(request)
    assert [check.name for check in checks if not check.passed] == [failing]
    assert len(checks) == 3
    assert "make setup" in not_run["model_output"]
    asked, _ = validation.validate(replace(request, test_rows=finished / "test.jsonl"))
    assert [check.name for check in asked if not check.passed] == sorted(["model_output", failing])


@pytest.mark.parametrize(
    "content",
    [None, "{not json", "[]", '{"results": [1]}'],
    ids=["003-19-missing", "not-json", "no-object", "no-object-inside"],
)
def test_without_training_info_there_is_nothing_to_check(finished: Path, content: str | None) -> None:
    """Exit code 1 and a sentence that names the file."""
    info = finished / "training_info.json"
    if content is None:
        info.unlink()
    else:
        info.write_text(content)
    done = validate(*everything(finished))
    assert done.returncode == 1
    assert "training_info.json" in done.stderr
    assert done.stdout == ""


def test_required_flags(finished: Path) -> None:
    """Without them it is wrong usage."""
    assert validate("--model-path", finished).returncode == 2


@pytest.mark.parametrize("harm", ["missing", "cut", "altered", "added"])
def test_checkpoints_that_are_not_whole(tmp_path: Path, harm: str) -> None:
    """Every byte counts, and nothing may be there that the manifest does not name."""
    folder = make_checkpoint(tmp_path / "checkpoint-1")
    assert check_checkpoint(tmp_path).passed
    weights = folder / "weights.safetensors"
    match harm:
        case "missing":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:50])
        case "altered":
            weights.write_bytes(b"\1" + weights.read_bytes()[1:])
        case _:
            (folder / "more.json").write_text("{}")
    assert not check_checkpoint(tmp_path).passed
    assert not check_checkpoint(folder).passed


def test_a_folder_without_checkpoints_fails(tmp_path: Path) -> None:
    """Asked for and not there is a failure."""
    assert not check_checkpoint(tmp_path).passed


def test_prompts_are_read_from_rows(tmp_path: Path) -> None:
    """Every shape gives what comes before its answer, with its words."""
    rows = [
        {"instruction": "Add.", "input": "2 + 2", "output": "4", "keywords": ["4", "four"]},
        {"instruction": "Say hi.", "output": "hi"},
        {"prompt": "once", "completion": "upon"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts, keywords = read_prompts(path)
    assert prompts == [
        [{"role": "user", "content": "Add.\n\n2 + 2"}],
        [{"role": "user", "content": "Say hi."}],
        "once",
        [{"role": "user", "content": "q"}],
    ]
    assert keywords == [("4", "four"), (), (), ()]
    path.write_text('{"question": "q"}\n')
    with pytest.raises(ValueError, match="line 1 has no"):
        read_prompts(path)
