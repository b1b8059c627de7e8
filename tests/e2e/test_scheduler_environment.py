"""The scheduler's own environment: installed by its extra alone, without torch, and it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_scheduler_runs_without_torch(tmp_path: Path) -> None:
    """An environment made by the extra `scheduler` has no torch, and the scheduler becomes ready in it."""
    python = str(tmp_path / "venv/bin/python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python]
    install = ["install", "-q", "--no-compile", "-c", str(ROOT / "constraints.txt"), "-e", f"{ROOT}[scheduler]"]
    subprocess.run([*pip, *install], check=True, stderr=subprocess.PIPE)
    listed = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    for package in ("torch", "transformers", "peft", "bitsandbytes", "accelerate"):
        assert f"\n{package}=" not in f"\n{listed}"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TUNEFORGE_", "PYTHONPATH"))}
    env |= {"TUNEFORGE_SCHEDULER_LISTEN": "127.0.0.1:0", "TUNEFORGE_DATA": str(tmp_path / "data")}
    process = subprocess.Popen(
        [python, "-m", "services.scheduler"], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tuneforge scheduler listening on 127.0.0.1:")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
