"""Runs that cannot come to anything end with a reason and a cure, and say so in time; all on real models."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.trainer.engine.checkpoints import newest_step, place_of
from services.trainer.engine.losses import LossSum, supervised_loss
from services.trainer.engine.tasks import language
from services.trainer.engine.training import train
from services.trainer.engine.training_task import Fault, RunResult, TrainingFault
from tests.support.tiny_model import make_tiny_model
from tests.support.training_run import SPEC, Killed, RecordingSink, never, tiny_inputs
from tuneforge.errors import Reason
from tuneforge.specs.spec import Evaluation, FullMethod, Guards, LearningRateSchedule, Optimization
from tuneforge.specs.wire import spec_to_proto
from tuneforge.v1 import events_pb2

RUNAWAY = replace(
    SPEC,
    method=FullMethod(),
    optimization=Optimization(
        max_steps=40,
        # The rate rises and rises; after two steps it is far too high.
        learning_rate=3.0,
        warmup_ratio=0.95,
        rows_per_step=4,
        schedule=LearningRateSchedule.CONSTANT,
    ),
)


def test_an_exploding_loss_ends_the_run(tmp_path: Path) -> None:
    """With a rate that rises too far the run fails soon after, naming both losses; the events have the way there."""
    sink = RecordingSink()
    with pytest.raises(TrainingFault) as fault:
        train(tiny_inputs(tmp_path, RUNAWAY), sink, never)
    assert fault.value.reason is Reason.LOSS_EXPLODED
    assert fault.value.fault is Fault.USER
    assert "learning_rate" in fault.value.cure
    assert len(sink.steps) < 40
    assert sink.steps[-1].step == int(fault.value.metadata["step"])
    assert all(step.loss > sink.steps[0].loss for step in sink.steps[-3:])


def test_a_save_that_was_under_way_is_told(tmp_path: Path) -> None:
    """A guard ends the run while its state is being written: that is waited for and told, and nothing else is there."""
    sink, spec = RecordingSink(), replace(RUNAWAY, checkpointing=replace(RUNAWAY.checkpointing, every_steps=1))
    task = tiny_inputs(tmp_path, spec)
    with pytest.raises(TrainingFault):
        train(task, sink, never)
    assert sink.of(events_pb2.CheckpointSaved)[-1].step == newest_step(task.checkpoints) == sink.steps[-1].step - 1
    state = json.loads((place_of(task.checkpoints, sink.steps[-1].step - 1) / "state.json").read_text())
    resolved = json.dumps(state["facts"]["resolution"]["spec"], sort_keys=True, separators=(",", ":"))
    assert state["attempt"] == task.attempt
    assert state["facts"]["spec_digest"] == hashlib.sha256(resolved.encode()).hexdigest()


def test_an_exploding_loss_may_be_allowed(tmp_path: Path) -> None:
    """With the guard off the same run goes to its end."""
    spec = replace(RUNAWAY, guards=Guards(loss_explosion_factor=0))
    result = train(tiny_inputs(tmp_path, spec), RecordingSink(), never)
    assert (result.result, result.step) == (RunResult.SUCCEEDED, 40)


def test_an_explosion_is_seen_at_the_same_step_after_a_resume(tmp_path: Path) -> None:
    """A run that is killed on its way into the explosion ends at the step where the unbroken one ends."""
    spec = replace(RUNAWAY, checkpointing=replace(RUNAWAY.checkpointing, every_steps=1))
    task, whole = tiny_inputs(tmp_path, spec), RecordingSink()
    unbroken = replace(task, checkpoints=tmp_path / "unbroken")
    with pytest.raises(TrainingFault):
        train(unbroken, whole, never)
    last = whole.steps[-1].step
    with pytest.raises(Killed):
        train(task, RecordingSink(killed_after=last - 1), never)
    resumed = RecordingSink()
    with pytest.raises(TrainingFault) as fault:
        train(replace(task, attempt=2), resumed, never)
    assert fault.value.metadata["step"] == str(last)
    assert len(resumed.steps) <= 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_validation_loss_that_is_no_number_ends_the_run(
    bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no lowest loss and nothing to publish; the state before it stays, from which another job can begin."""
    spec = replace(SPEC, evaluation=Evaluation(every_steps=3, use_best=True))
    task, sink = tiny_inputs(tmp_path, spec), RecordingSink()

    def broken(model: Any, batch: Any) -> LossSum:
        found = supervised_loss(model, batch)
        is_measured = not model.training and len(sink.steps) >= 6
        return replace(found, sum=found.sum * bad) if is_measured else found

    monkeypatch.setattr(language, "supervised_loss", broken)
    with pytest.raises(TrainingFault, match="validation loss") as fault:
        train(replace(task, validation=task.train), sink, never)
    assert (fault.value.reason, fault.value.fault) == (Reason.LOSS_NOT_FINITE, Fault.USER)
    assert [each.step for each in sink.of(events_pb2.EvaluationMetrics)] == [3]
    assert newest_step(task.checkpoints) == 4
    assert not task.output.exists()


def test_a_run_without_gradients_ends_at_once(tmp_path: Path) -> None:
    """A base whose last norm is 0 gives no weight a gradient: the run ends after the steps that the spec allows."""
    task = tiny_inputs(tmp_path, replace(SPEC, guards=Guards(zero_gradient_steps=2)))
    _without_gradient(tmp_path / "base/model.safetensors")
    task, sink = tiny_inputs(tmp_path, task.spec), RecordingSink()
    with pytest.raises(TrainingFault) as fault:
        train(task, sink, never)
    assert fault.value.reason is Reason.NO_EFFECT
    assert [step.grad_norm for step in sink.steps] == [0.0, 0.0]


def test_adapters_that_change_nothing_are_no_result(tmp_path: Path) -> None:
    """With a rate below any effect the run fails, instead of publishing its base."""
    spec = replace(SPEC, optimization=replace(SPEC.optimization, learning_rate=1e-12))
    task = tiny_inputs(tmp_path, spec)
    with pytest.raises(TrainingFault) as fault:
        train(task, RecordingSink(), never)
    assert fault.value.reason is Reason.NO_EFFECT
    assert not task.output.exists()


def _without_gradient(path: Path) -> None:
    weights = load_file(path)
    weights["model.norm.weight"] = torch.zeros_like(weights["model.norm.weight"])
    save_file(weights, path, metadata={"format": "pt"})


def test_memory_that_runs_out_is_told_with_a_way_out(tmp_path: Path) -> None:
    """Under a limit of its own a run fails with its peak, the limit and the cheapest change that fits, not repeated."""
    tokens = 2048
    base = tmp_path / "base"
    make_tiny_model(base, layers=2, hidden=256)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2 * tokens}))
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "z" * (tokens - 80)}]
    (tmp_path / "rows.jsonl").write_text(8 * (json.dumps({"messages": turns}) + "\n"))
    spec = replace(
        SPEC,
        data=replace(SPEC.data, max_tokens=tokens),
        optimization=Optimization(max_steps=2, rows_per_step=8, rows_per_micro_batch=8),
    )
    code = _IN_A_CHILD.format(folder=str(tmp_path), headroom=200_000_000)
    (tmp_path / "spec.bin").write_bytes(spec_to_proto(spec).SerializeToString())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["reason"], told["is_user"]) == ("OUT_OF_MEMORY", True)
    assert told["metadata"]["change"] == "`optimization.rows_per_micro_batch` 1"
    assert 0 < int(told["metadata"]["peak_bytes"]) <= int(told["metadata"]["limit_bytes"]) * 2
    assert "Set `optimization.rows_per_micro_batch` 1" in told["cure"]


# The limit must not hold for the tests themselves.
_IN_A_CHILD = """
import json, resource, sys
from pathlib import Path
import torch
from services.trainer.engine import training
from services.trainer.engine.training_task import Fault, TrainingFault
from tests.support.training_run import RecordingSink, never, tiny_inputs
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import spec_pb2

training.preload()
folder = Path("{folder}")
spec = spec_from_proto(spec_pb2.TrainingSpec.FromString((folder / "spec.bin").read_bytes()))
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData:"))
resource.setrlimit(resource.RLIMIT_DATA, (used + {headroom}, resource.RLIM_INFINITY))
try:
    training.train(tiny_inputs(folder, spec), RecordingSink(), never)
except TrainingFault as fault:
    told = dict(reason=fault.reason, cure=fault.cure, is_user=fault.fault is Fault.USER, metadata=fault.metadata)
    print(json.dumps(told))
"""
