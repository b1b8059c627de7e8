"""Reference cases of the one command that tunes: its flags, its file, and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tuneforge.cli.app import cli
from tuneforge.data.locations import LocationKind
from tuneforge.one_shot.inputs import bring_rows, place_of_rows
from tuneforge.one_shot.settings import RunSettings, SettingsFault, check, with_file

ROOT = Path(__file__).parents[3]
PLACES = {"model_id": "Qwen/Qwen2.5-7B-Instruct", "dataset_path": "rows.jsonl", "output_dir": "./output"}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `tuneforge train`, which is to end before it starts anything."""
    command = [sys.executable, "-m", "tuneforge.cli", "train", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)


def faults_of(content: dict[str, Any], **flags: Any) -> list[str]:
    """Returns what is wrong with a file and flags."""
    with pytest.raises(SettingsFault) as caught:
        check(with_file(RunSettings(**{**PLACES, **flags}), content))
    return caught.value.faults


@pytest.mark.parametrize("case", ["003-41"])
def test_missing_flags_are_named_together(tmp_path: Path, case: str) -> None:
    """All three at once, exit code 2."""
    done = run("--method", "lora", folder=tmp_path)
    assert done.returncode == 2
    assert all(f"{flag} is required" in done.stderr for flag in ("--model-id", "--dataset-path", "--output-dir"))


@pytest.mark.parametrize("case", ["003-01", "003-02", "003-03", "003-04"])
def test_every_flag_is_taken(case: str) -> None:
    """The page's flags are the command's, and leave it only a missing folder to complain of."""
    from tuneforge.cli.train import train

    arguments = {
        "003-01": "--method lora --learning-rate 2e-4 --batch-size 4 --epochs 3 --lora-rank 16 --lora-alpha 32",
        "003-02": "--method qlora --learning-rate 2e-4 --batch-size 4 --epochs 3 --lora-rank 16 --lora-alpha 32 --fp16",
        "003-03": "--method full --learning-rate 2e-5 --batch-size 2 --epochs 3 --gradient-checkpointing --fp16",
        "003-04": "--method lora --enable-metrics --metrics-port 8000",
    }[case].split()
    places = [f"--{name.replace('_', '-')}={value}" for name, value in PLACES.items()]
    found = train.make_context("train", [*places, *arguments]).params
    assert (found["method"], found["epochs"]) == (arguments[1], 3.0)
    assert found["learning_rate"] == {"003-03": 2e-5, "003-04": None}.get(case, 2e-4)
    assert found["fp16"] is (case in {"003-02", "003-03"})
    assert found["gradient_checkpointing"] is (case == "003-03")
    assert (found["enable_metrics"], found["metrics_port"]) == (case == "003-04", 8000)
    assert (found["lora_rank"], found["lora_alpha"], found["seed"]) == (16, 32.0, 42)


@pytest.mark.parametrize("case", ["003-01"])
def test_defaults(case: str) -> None:
    """What is not given has the page's default."""
    settings = RunSettings(**PLACES)  # type: ignore[arg-type]
    assert (settings.method, settings.rate, settings.batch_size, settings.epochs) == ("lora", 2e-4, 4, 3.0)
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_dropout, settings.seed) == (16, 32.0, 0.05, 42)
    assert (settings.save_steps, settings.save_total_limit, settings.gradient_accumulation_steps) == (500, 3, 1)
    assert RunSettings(method="full").rate == 2e-5


@pytest.mark.parametrize(
    ("method", "is_right"),
    [
        pytest.param("lora", True, id="003-12-lora"),
        pytest.param("qlora", True, id="003-12-qlora"),
        pytest.param("full", True, id="003-12-full"),
        pytest.param("adapter", False, id="003-12-adapter"),
    ],
)
def test_methods(method: str, is_right: bool) -> None:
    """Another word is answered with the three."""
    settings = RunSettings(**PLACES, method=method)  # type: ignore[arg-type]
    if is_right:
        check(settings)
    else:
        with pytest.raises(SettingsFault, match="lora, qlora, full"):
            check(settings)


@pytest.mark.parametrize("case", ["003-12-prose"])
def test_a_method_as_prose_spells_it(tmp_path: Path, case: str) -> None:
    """`LoRA` is taken: only the missing model is complained of."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = run("--model-id=x", "--dataset-path=rows.jsonl", "--output-dir=o", "--method=LoRA", folder=tmp_path)
    assert done.returncode == 2
    assert "there is no folder 'x'" in done.stderr


@pytest.mark.parametrize("case", ["003-09"])
def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """With `--dataset-format hf` a bare name is one of the hub."""
    monkeypatch.chdir(tmp_path)
    found = place_of_rows(RunSettings(dataset_path="dataset_name", dataset_format="hf"))
    assert (found.kind, found.uri) == (LocationKind.HUB, "hf://dataset_name")
    with pytest.raises(SettingsFault, match="--dataset-path"):
        place_of_rows(RunSettings(dataset_path="missing.jsonl"))


def test_rows_that_are_no_file_are_told_in_words(tmp_path: Path) -> None:
    """A pipe is not waited for, and the answer is a sentence."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(SettingsFault) as caught:
        place_of_rows(RunSettings(dataset_path=str(tmp_path / "pipe.jsonl")))
    assert caught.value.faults == ["--dataset-path: It is no regular file. Give a regular file."]


@pytest.mark.parametrize("case", ["003-18"])
def test_a_busy_port_is_told_before_anything_starts(tmp_path: Path, case: str) -> None:
    """Exit code 2, the flag and what to do; no folder was made."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "model").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        places = ("--model-id=model", "--dataset-path=rows.jsonl", "--output-dir=out")
        done = run(*places, "--enable-metrics", f"--metrics-port={port}", folder=tmp_path)
    assert done.returncode == 2
    assert f"--metrics-port: port {port} is in use, choose another" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", ["003-38"])
def test_a_file_wins_over_the_flags(case: str) -> None:
    """Every key of the page's configuration file has its place."""
    content = {
        "model_id": "other/model",
        "dataset": {"path": "x.csv", "format": "csv"},
        "hyperparameters": {
            "learning_rate": 1e-3,
            "batch_size": 2,
            "epochs": 1,
            "gradient_accumulation_steps": 4,
            "max_seq_length": 512,
            "warmup_steps": 5,
            "logging_steps": 10,
            "save_steps": 50,
            "eval_steps": None,
            "save_total_limit": 1,
            "fp16": False,
            "bf16": True,
            "gradient_checkpointing": True,
            "seed": 7,
        },
        "lora_config": {
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.1,
            "target_modules": ["q_proj"],
            "bias": "none",
            "task_type": "CAUSAL_LM",
        },
        "quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        "trust_remote_code": False,
        "use_flash_attention": True,
    }
    found = with_file(RunSettings(**PLACES), content)  # type: ignore[arg-type]
    check(found)
    assert (found.model_id, found.dataset_path, found.output_dir) == ("other/model", "x.csv", "./output")
    assert (found.rate, found.rows_per_step, found.warmup_steps, found.save_steps) == (1e-3, 8, 5, 50)
    assert (found.bf16, found.gradient_checkpointing, found.seed, found.eval_steps) == (True, True, 7, None)
    assert (found.lora_rank, found.lora_alpha, found.target_modules) == (8, 16.0, ("q_proj",))
    assert "use_flash_attention" in found.ignored[0]


def test_everything_wrong_in_a_file_is_named() -> None:
    """Unknown keys, wrong types, what is not possible here, and code of a model: one answer."""
    with pytest.raises(SettingsFault) as caught:
        with_file(
            RunSettings(**PLACES),  # type: ignore[arg-type]
            {
                "hyperparameters": {"learning_rat": 1, "epochs": "three", "fp16": 1},
                "lora_config": {"bias": "all"},
                "quantization_config": {"bnb_4bit_quant_type": "fp4"},
                "trust_remote_code": True,
                "surprise": 1,
            },
        )
    words = ("learning_rat", "epochs is no number", "fp16", "bias", "fp4", "trust_remote_code", "surprise")
    assert len(caught.value.faults) == len(words)
    assert all(any(word in fault for fault in caught.value.faults) for word in words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"hyperparameters": {"learning_rate": -1, "epochs": 0}}, ["--learning-rate is -1.0", "--epochs is 0.0"]),
        ({"hyperparameters": {"fp16": True, "bf16": True}}, ["fp16 and bf16 exclude each other"]),
        ({"torch_dtype": "float16", "hyperparameters": {"bf16": True}}, ["fp16 and bf16 exclude each other"]),
        ({"hyperparameters": {"batch_size": 0, "save_steps": 0}}, ["--batch-size is 0", "--save-steps is 0"]),
        ({"lora_config": {"lora_dropout": 1.0}}, ["lora_dropout is 1.0"]),
        ({"hyperparameters": {"learning_rate": float("nan")}}, ["--learning-rate is nan"]),
    ],
)
def test_values_out_of_range_are_named(content: dict[str, Any], words: list[str]) -> None:
    """By flag, with what is allowed."""
    faults = faults_of(content)
    assert [any(word in fault for fault in faults) for word in words] == [True] * len(words)
    assert len(faults) == len(words)


@pytest.mark.parametrize("content", ["[1]", "{not json", '{"model_id": 3}'])
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    """Whatever is in the file, the answer is a sentence."""
    (tmp_path / "c.json").write_text(content)
    done = run("--config=c.json", folder=tmp_path)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert "c.json" in done.stderr or "--config" in done.stderr


def test_a_file_may_name_all_that_is_required(tmp_path: Path) -> None:
    """Then no flag is needed; here only the model is not there."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    named = {"model_id": "nowhere", "dataset_path": "rows.jsonl", "output_dir": "o"}
    (tmp_path / "c.json").write_text(json.dumps(named))
    assert "there is no folder 'nowhere'" in run("--config=c.json", folder=tmp_path).stderr


@pytest.mark.parametrize("case", ["003-40"])
def test_without_the_services_it_is_said_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The package alone has the client only: exit code 1, and what to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tuneforge.one_shot.services.are_installed", lambda: False)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "model").mkdir()
    arguments = ["train", "--model-id=model", "--dataset-path=rows.jsonl", "--output-dir=out"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "make setup" in done.output
    assert "--attach" in done.output
    assert not (tmp_path / "out").exists()


def test_a_configuration_of_the_rows_is_chosen(tmp_path: Path) -> None:
    """--dataset-config is a key of the file too; with rows that are one file it is refused before anything starts."""
    chosen = with_file(RunSettings(), {"dataset_config": "short"})
    assert chosen.dataset_config == "short"
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(SettingsFault, match="--dataset-config"):
        place_of_rows(replace(chosen, dataset_path=str(tmp_path / "rows.jsonl")))
    assert place_of_rows(replace(chosen, dataset_path=str(tmp_path))).kind is LocationKind.FOLDER


@pytest.mark.parametrize("path", ["", "https://example.org/rows"])
def test_the_chosen_configuration_is_asked_for(tmp_path: Path, path: str) -> None:
    """Rows of a folder are uploaded, and rows of elsewhere imported, in the configuration that was named."""
    asked: dict[str, Any] = {}

    def take(*_places: str, **options: Any) -> Any:
        asked.update(options)
        return SimpleNamespace(name="projects/default/datasets/rows/versions/1", statistics=None)

    client: Any = SimpleNamespace(datasets=SimpleNamespace(upload=take, import_from=take, version=take))
    settings = RunSettings(dataset_path=path or str(tmp_path), dataset_config="short", validation_split=0)
    bring_rows(client, settings, place_of_rows(settings))
    assert (asked["options"].source_config if path else asked["config"]) == "short"
