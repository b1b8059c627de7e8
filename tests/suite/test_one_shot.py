"""`tuneforge train` as a user runs it: one command, a folder with the result, Ctrl-C and on again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from services.launcher import Suite
from services.stores.ports import free_ports
from tests.support.exposition import Page
from tests.support.suite import connect, running_suite, tiny_inputs
from tuneforge.manifest import Manifest, verify
from tuneforge.one_shot.settings import RunSettings, check, with_file

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples/one_command"
CONFIG = SCRIPTS / "config.json"
ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "training_info.json"}
MODEL = {"config.json", "model.safetensors", "tokenizer.json", "training_info.json"}
LIMIT_S = 300.0


def command(folder: Path, *arguments: str) -> list[str]:
    """Returns the command with a tiny model and rows."""
    model, rows = tiny_inputs(folder, rows=64)
    places = ("--model-id", str(model), "--dataset-path", str(rows), "--output-dir", str(folder / "out"))
    return [sys.executable, "-m", "tuneforge.cli", "train", *places, *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """One thread computes, so that tests can run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TUNEFORGE_TRAINER_CPU_MILLIS": "1000", **(extra or {})}


def started_below(data: Path) -> list[psutil.Process]:
    """Returns the processes that run with a data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TUNEFORGE_DATA") == str(data):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def test_a_run_is_stopped_and_goes_on(tmp_path: Path) -> None:
    """Metrics move while it trains, Ctrl-C saves a checkpoint and leaves nothing, and the same command ends the job."""
    arguments = command(
        tmp_path, "--epochs", "12", "--learning-rate", "0.01", "--enable-metrics", "--metrics-port", "0"
    )
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address, steps, page = "", set[float | None](), None
        for line in process.stdout:
            if "metrics are at" in line:
                address = line.split()[-1]
            if "  step  " in line and len(steps) < 2:
                page = Page.fetch(address)
                steps.add(page.value("finetuning_training_step", job_name="out"))
                if len(steps) == 2:
                    process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130
    assert page is not None
    assert page.value("finetuning_job_status", method="lora") == 1
    assert started_below((tmp_path / "out/.tuneforge").absolute()) == []

    again = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert again.returncode == 0, again.stderr
    assert "going on with run-" in again.stdout
    assert "goes on after step" in again.stdout
    last = re.findall(r"  step  +(\d+)/\1  ", again.stdout)[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {*ADAPTER, "aim_profile.json", f"checkpoint-{last}"}
    _check_documents(tmp_path / "out", str(tmp_path / "tiny-model"))
    checkpoint = tmp_path / "out" / f"checkpoint-{last}"
    verify(checkpoint, Manifest.from_json((checkpoint / "manifest.json").read_text()), exclude=["manifest.json"])


def _check_documents(output: Path, model_id: str) -> None:
    info = json.loads((output / "training_info.json").read_text())
    assert (info["model_id"], info["output_dir"], info["method"]) == (model_id, str(output), "lora")
    assert info["training_config"].keys() >= {"learning_rate", "batch_size", "epochs", "max_seq_length"}
    assert info["results"].keys() >= {"train_loss", "train_runtime", "train_samples_per_second", "model_path"}
    profile = json.loads((output / "aim_profile.json").read_text())
    assert profile["model_id"] == f"{model_id}-finetuned"
    assert profile["recommended_partition_gb"] == round(profile["memory_gb"] * 1.25, 2)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Services that run already."""
    with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "files"),
    [
        pytest.param("lora", ADAPTER, id="003-01"),
        pytest.param("qlora", ADAPTER, id="003-02"),
        pytest.param("full", MODEL, id="003-03"),
    ],
)
def test_every_method_on_services_that_run(suite: Suite, tmp_path: Path, method: str, files: set[str]) -> None:
    """With --attach nothing is started; the result is the method's, and the same command again only brings it."""
    flags = ["--method", method, "--epochs", "1", "--batch-size", "2", "--lora-rank", "8", "--lora-alpha", "16"]
    addresses = {f"TUNEFORGE_{name.upper()}_ADDRESS": suite.address(name) for name in ("registry", "scheduler")}
    arguments = command(tmp_path, "--attach", "--gradient-checkpointing", *flags)
    runs = ("SUCCEEDED, published out/", "which is SUCCEEDED") if method == "lora" else ("SUCCEEDED, published out/",)
    for words in runs:
        done = subprocess.run(
            arguments, env=environment(addresses), capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} >= files
    info = json.loads((tmp_path / "out/training_info.json").read_text())
    assert (info["method"], info["training_config"]["per_device_batch_size"]) == (method, 2)
    assert not (tmp_path / "out/.tuneforge/trainer").exists()


def test_a_job_that_was_paused_goes_on(suite: Suite, tmp_path: Path) -> None:
    """The same command takes it up again, and does not wait for somebody else to."""
    addresses = {f"TUNEFORGE_{name.upper()}_ADDRESS": suite.address(name) for name in ("registry", "scheduler")}
    arguments = command(tmp_path, "--attach", "--epochs", "20")
    with connect(suite) as client:
        with subprocess.Popen(arguments, env=environment(addresses), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                if "  step  " in line:
                    newest = next(client.jobs.list()).name
                    client.jobs.pause(newest)
                    break
            for line in process.stdout:
                if "-> PAUSED" in line:
                    process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 130
        done = subprocess.run(
            arguments, env=environment(addresses), capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stderr
        assert "which is PAUSED" in done.stdout
        assert client.jobs.read(newest).state == "SUCCEEDED"


def test_rows_of_a_wrong_shape_end_it_with_what_was_found(suite: Suite, tmp_path: Path) -> None:
    """Exit code 1, what is expected and what is there, before anything is trained (003-11)."""
    addresses = {f"TUNEFORGE_{name.upper()}_ADDRESS": suite.address(name) for name in ("registry", "scheduler")}
    arguments = command(tmp_path, "--attach")
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    done = subprocess.run(
        arguments, env=environment(addresses), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 1
    assert "question" in done.stderr
    assert "instruction" in done.stderr


def run_script(name: str, env: Mapping[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs an example script as a user does, from the checkout."""
    command = [str(SCRIPTS / name), *flags]
    return subprocess.run(
        command, cwd=ROOT, env=environment(env), capture_output=True, text=True, check=False, timeout=LIMIT_S
    )


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_there_is_a_script_for_each_method(tmp_path: Path, method: str) -> None:
    """It trains small, and checks what it made (003-25); what they run together is the test below."""
    done = run_script(f"test_{method}.sh", {"TUNEFORGE": "echo", "OUT": str(tmp_path)}, "--seed", "1")
    train, validate = done.stdout.splitlines()
    assert f"--method {method} --epochs 1 --batch-size 1 --max-seq-length 512" in train
    assert train.endswith("--seed 1")
    assert validate.startswith(f"validate --training-info {tmp_path}/training_info.json")


def test_the_script_with_metrics_ends_well(suite: Suite, tmp_path: Path) -> None:
    """It trains, sees the metrics meanwhile, and checks the content of what was made (003-25)."""
    model, _ = tiny_inputs(tmp_path)
    addresses = {f"TUNEFORGE_{name.upper()}_ADDRESS": suite.address(name) for name in ("registry", "scheduler")}
    places = {"MODEL": str(model), "OUT": str(tmp_path / "out"), "PORT": str(free_ports(1)[0])}
    command = {"TUNEFORGE": f"{sys.executable} -m tuneforge.cli"}
    done = run_script("test_monitoring.sh", addresses | places | command, "--attach", "--epochs", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS  model_output" in done.stdout
    assert "Summary: 3/3 checks passed" in done.stdout
    assert re.search(r"^finetuning_job_status\{.*\} 1\.0$", done.stdout, re.MULTILINE)


def test_a_file_of_settings_is_an_example() -> None:
    """The example is one that the command takes."""
    check(with_file(RunSettings(model_id="m", dataset_path="d", output_dir="o"), json.loads(CONFIG.read_text())))
