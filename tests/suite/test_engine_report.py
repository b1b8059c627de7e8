"""The report beside a result shows the whole run, resumes and all, and its bytes repeat with the run."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.trainer.engine.training import train
from tests.support.training_run import SPEC, Killed, RecordingSink, apart, never, tiny_inputs
from tuneforge.specs.spec import Evaluation


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_resumed_run_has_the_report_of_an_unbroken_one(tmp_path: Path) -> None:
    """Steps and evaluations before a kill are in it; the bytes are the same."""
    evaluation = Evaluation(every_steps=3, prompts=("Say <cat> 0.",), max_new_tokens=4)
    task = tiny_inputs(tmp_path, replace(SPEC, evaluation=evaluation))
    task = replace(task, validation=task.train)
    whole, broken = apart(task, "whole"), apart(task, "broken")
    sink = RecordingSink()
    result = train(whole, sink, never)
    with pytest.raises(Killed):
        train(broken, RecordingSink(killed_after=7), never)
    train(replace(broken, attempt=2), RecordingSink(), never)
    page = (whole.output / "report.html").read_text()
    assert (broken.output / "report.html").read_text() == page
    assert result.artifact
    assert "report.html" in {file.path for file in result.artifact.files}
    lines = [len(points.split()) for points in re.findall(r'<polyline points="([^"]+)"', page)]
    # Nine steps in the plots of steps, three evaluations in theirs.
    assert sorted(lines) == [3, 9, 9, 9, 9]
    for words in ("PASS", "training_loss", "Say &lt;cat&gt; 0.", "max_steps", f"{sink.steps[-1].loss:.6g}"):
        assert words in page, words
    for digest in (task.base[0].digest, "train (SHA-256)", "validation (SHA-256)"):
        assert digest in page
