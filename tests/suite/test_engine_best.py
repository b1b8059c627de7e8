"""The lowest validation loss of a run: it ends in time, and the result has the weights of that moment."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.trainer.engine import checkpoints
from services.trainer.engine.training import train
from services.trainer.engine.training_task import RunResult, TrainingInputs
from tests.support.tiny_model import write_rows
from tests.support.training_run import SPEC, Killed, RecordingSink, apart, never, tiny_inputs
from tuneforge.specs.spec import Checkpointing, Evaluation, FullMethod, LearningRateSchedule
from tuneforge.v1 import events_pb2

STEPS = 30


def overfitting(folder: Path, **evaluation: object) -> TrainingInputs:
    """Returns a run that learns its rows by heart, so that the loss on others falls first and rises then."""
    optimization = replace(
        SPEC.optimization, max_steps=STEPS, learning_rate=3e-2, schedule=LearningRateSchedule.CONSTANT
    )
    spec = replace(
        SPEC,
        method=FullMethod(),
        optimization=optimization,
        checkpointing=Checkpointing(every_steps=5, keep_last=1),
        evaluation=Evaluation(every_steps=1, **evaluation),  # type: ignore[arg-type]
    )
    task = tiny_inputs(folder, spec, rows=4)
    return replace(task, validation=[write_rows(folder / "others.jsonl", 30)])


def losses(sink: RecordingSink) -> dict[int, float]:
    """Returns step -> validation loss."""
    return {event.step: event.loss for event in sink.of(events_pb2.EvaluationMetrics)}


def test_a_run_ends_when_it_learns_nothing_more(tmp_path: Path) -> None:
    """With a patience of 2 it ends after the second evaluation in a row that is no new best; it has succeeded."""
    everything, patient = RecordingSink(), RecordingSink()
    train(apart(overfitting(tmp_path), "all"), everything, never)
    found = losses(everything)
    best, waited, end = float("inf"), 0, 0
    for step, loss in found.items():
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == 2:
            end = step
            break
    assert 2 < end < STEPS, found
    result = train(apart(overfitting(tmp_path, patience=2), "patient"), patient, never)
    assert (result.result, result.step) == (RunResult.SUCCEEDED, end)
    assert losses(patient) == {step: loss for step, loss in found.items() if step <= end}
    assert result.metrics["best_evaluation_loss"] == best
    assert [line.message for line in patient.of(events_pb2.LogLine) if "Stopped early" in line.message]


@pytest.mark.parametrize("case_id", ["001-10"], ids=["001-10"])
def test_the_result_has_the_best_weights(case_id: str, tmp_path: Path) -> None:
    """The file of the result is that of the best step's checkpoint, which outlived `keep_last`; also after a kill."""
    task = apart(overfitting(tmp_path, use_best=True), "best")
    sink = RecordingSink(killed_after=20)
    with contextlib.suppress(Killed):
        train(task, sink, never)
    again = RecordingSink()
    result = train(replace(task, attempt=2), again, never)
    found = losses(sink) | losses(again)
    best = min(found, key=lambda step: found[step])
    assert best < STEPS
    assert [event.step for event in sink.of(events_pb2.EvaluationMetrics) if event.is_best][-1] == best
    kept = {
        one.step: one for one in checkpoints.saved(task.checkpoints) if isinstance(one, checkpoints.SavedCheckpoint)
    }
    assert set(kept) == {best, STEPS}
    saved = checkpoints.load(kept[best]).tensors["weights"]
    written = load_file(task.output / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(written[name], saved[name])
    assert not torch.equal(written[name], checkpoints.load(kept[STEPS]).tensors["weights"][name])
    assert result.metrics["evaluation_loss"] == found[STEPS] > result.metrics["best_evaluation_loss"] == found[best]


def test_an_early_end_is_the_same_after_a_kill(tmp_path: Path) -> None:
    """Killed at its last step, the run ends at the same step with the same bits as one that was not."""
    task = overfitting(tmp_path, patience=2, use_best=True)
    whole = RecordingSink()
    expected = train(apart(task, "whole"), whole, never)
    killed = RecordingSink(killed_after=expected.step)
    with contextlib.suppress(Killed):
        train(apart(task, "killed"), killed, never)
    found = train(apart(task, "killed", attempt=2), RecordingSink(), never)
    assert (found.step, found.artifact) == (expected.step, expected.artifact)


def test_a_node_that_cannot_have_the_best_one_counts_from_there(tmp_path: Path) -> None:
    """It says so at the beginning, and the result has the lowest validation loss of the steps that were left."""
    task = overfitting(tmp_path, use_best=True)
    sink = RecordingSink(killed_after=20)
    with contextlib.suppress(Killed):
        train(task, sink, never)
    best = [event.step for event in sink.of(events_pb2.EvaluationMetrics) if event.is_best][-1]
    resumed = checkpoints.newest_step(task.checkpoints)
    assert resumed is not None
    assert best < resumed
    shutil.rmtree(checkpoints.place_of(task.checkpoints, best))
    again = RecordingSink()
    result = train(replace(task, attempt=2), again, never)
    assert any(f"after step {best}, is not to be had" in line.message for line in again.of(events_pb2.LogLine))
    left = losses(again)
    assert min(left) == resumed + 1
    assert result.metrics["best_evaluation_loss"] == min(left.values())
