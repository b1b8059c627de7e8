"""A run that was killed and resumed cannot be told from an unbroken one, bit for bit."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.trainer.engine import checkpoints
from services.trainer.engine.token_cache import TokenCache
from services.trainer.engine.training import train
from services.trainer.engine.training_task import Fault, RunResult, StopRequest, TrainingFault, TrainingInputs
from tests.support.training_run import SPEC, Killed, RecordingSink, apart, never, stop_after, tiny_inputs
from tuneforge.errors import Reason
from tuneforge.specs.spec import (
    ActivationRecompute,
    Checkpointing,
    ComputeType,
    Evaluation,
    FullMethod,
    LearningRateSchedule,
    LoraMethod,
    Method,
    Optimizer,
    QloraMethod,
)
from tuneforge.v1 import events_pb2, spec_pb2

METHODS: dict[str, Method] = {
    "lora": LoraMethod(rank=4, dropout=0.1),
    "qlora": QloraMethod(lora=LoraMethod(rank=4, dropout=0.1)),
    "full": FullMethod(),
    "rslora": LoraMethod(rank=4, dropout=0.1, use_rslora=True),
    "dora": LoraMethod(rank=4, dropout=0.1, use_dora=True),
    "qdora": QloraMethod(lora=LoraMethod(rank=4, use_dora=True)),
    "frozen": FullMethod(freeze_layers=1),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def numbers(sink: RecordingSink) -> dict[int, tuple[float, float, float, str]]:
    """Returns loss, gradient norm, rate and rows of each step; of a step that came twice, the last."""
    return {step.step: (step.loss, step.grad_norm, step.learning_rate, step.rows_digest) for step in sink.steps}


def killed_after(task: TrainingInputs, *steps: int) -> RecordingSink:
    """Runs attempts that are killed after the given steps, then one to the end; returns all that they reported."""
    everything = RecordingSink()
    for attempt, step in enumerate((*steps, 0), start=1):
        sink = RecordingSink(killed_after=step)
        try:
            train(replace(task, attempt=attempt), sink, never)
        except Killed:
            assert step
        everything.payloads += sink.payloads
    return everything


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
@pytest.mark.parametrize("method", METHODS)
def test_killed_runs_end_with_the_same_bits(method: str, compute: ComputeType, tmp_path: Path) -> None:
    """Killed after steps 3, 6 and 7 of 9, with dropout: every loss, norm and byte of the artifact is the same."""
    spec = replace(SPEC, method=METHODS[method], compute=compute)
    task = tiny_inputs(tmp_path, spec)
    unbroken = RecordingSink()
    expected = train(apart(task, "unbroken"), unbroken, never)
    broken = killed_after(task, 3, 6, 7)
    assert [event.step for event in broken.of(events_pb2.ResumedFrom)] == [2, 4, 6]
    assert [event.attempt for event in broken.of(events_pb2.ResumedFrom)] == [1, 2, 3]
    assert numbers(broken) == numbers(unbroken)
    found = train(replace(task, attempt=5), RecordingSink(), never)
    assert found.artifact == expected.artifact
    assert len({step.loss for step in unbroken.steps}) == 9


@pytest.mark.parametrize("schedule", [LearningRateSchedule.WSD, LearningRateSchedule.STEP])
@pytest.mark.parametrize("optimizer", [kind for kind in Optimizer if kind is not Optimizer.ADAMW])
def test_every_rule_is_resumed_exactly(optimizer: Optimizer, schedule: LearningRateSchedule, tmp_path: Path) -> None:
    """The state of every update rule survives like AdamW's means; a paged one says that it became its plain form."""
    optimization = replace(SPEC.optimization, optimizer=optimizer, schedule=schedule, weight_decay=0.1)
    task = tiny_inputs(tmp_path, replace(SPEC, method=FullMethod(), optimization=optimization))
    unbroken = RecordingSink()
    train(apart(task, "unbroken"), unbroken, never)
    assert numbers(killed_after(task, 5)) == numbers(unbroken)
    told = [line.message for line in unbroken.of(events_pb2.LogLine) if "without a GPU" in line.message]
    assert bool(told) == (optimizer is not optimizer.unpaged)


def test_evaluations_leave_the_weights_alone(tmp_path: Path) -> None:
    """With and without evaluation and samples, every step has the same bits; in 4 bits too."""
    for method in METHODS.values():
        spec = replace(SPEC, method=method, checkpointing=Checkpointing(every_steps=0))
        task = tiny_inputs(tmp_path, spec)
        plain, measured = RecordingSink(), RecordingSink()
        train(apart(task, "plain"), plain, never)
        evaluation = Evaluation(every_steps=2, prompts=("Say cat 0.", "Say"), max_new_tokens=4)
        with_rows = replace(task, spec=replace(spec, evaluation=evaluation), validation=task.train)
        train(apart(with_rows, "measured"), measured, never)
        assert numbers(plain) == numbers(measured)
        assert [event.step for event in measured.of(events_pb2.EvaluationMetrics)] == [2, 4, 6, 8, 9]
        assert len(measured.of(events_pb2.Sample)) == 10


def test_a_stop_saves_where_it_stands(tmp_path: Path) -> None:
    """CHECKPOINT after step 3 saves step 3 and ends as INTERRUPTED; the next attempt goes on with step 4."""
    task = tiny_inputs(tmp_path, replace(SPEC, checkpointing=Checkpointing(every_steps=0)))
    unbroken, first, second = RecordingSink(), RecordingSink(), RecordingSink()
    train(apart(task, "unbroken"), unbroken, never)
    stopped = train(task, first, stop_after(first, 3, StopRequest.CHECKPOINT))
    assert (stopped.result, stopped.step, stopped.artifact) == (RunResult.INTERRUPTED, 3, None)
    assert [event.step for event in first.of(events_pb2.CheckpointSaved)] == [3]
    finished = train(replace(task, attempt=2), second, never)
    assert (finished.result, finished.step) == (RunResult.SUCCEEDED, 9)
    assert numbers(first) | numbers(second) == numbers(unbroken)
    assert finished.metrics["tokens"] == sum(step.tokens for step in unbroken.steps)


def test_a_resumed_run_reports_where_it_came_from_first(tmp_path: Path) -> None:
    """The first report of a resumed attempt names step, attempt and digest of its checkpoint."""
    task = tiny_inputs(tmp_path)
    first, second = RecordingSink(killed_after=5), RecordingSink()
    with pytest.raises(Killed):
        train(task, first, never)
    (saved, *_) = checkpoints.saved(task.checkpoints)
    assert isinstance(saved, checkpoints.SavedCheckpoint)
    train(replace(task, attempt=2), second, never)
    assert second.payloads[0] == events_pb2.ResumedFrom(step=4, attempt=1, digest=saved.manifest.digest)
    assert second.of(events_pb2.Resolved) == first.of(events_pb2.Resolved)


def test_from_its_last_step_a_run_makes_its_result_again(tmp_path: Path) -> None:
    """A checkpoint of the last step is enough: no step is trained, and the artifact has the same bytes."""
    task = tiny_inputs(tmp_path, replace(SPEC, checkpointing=Checkpointing(every_steps=3)))
    expected = train(task, RecordingSink(), never)
    again = RecordingSink()
    found = train(replace(task, attempt=2), again, never)
    assert [event.step for event in again.of(events_pb2.ResumedFrom)] == [9]
    assert not again.steps
    assert found.artifact == expected.artifact


def test_a_damaged_checkpoint_costs_steps_only(tmp_path: Path) -> None:
    """With its newest checkpoint damaged a run warns, goes on from the one before, and ends with the same bits."""
    task = tiny_inputs(tmp_path)
    unbroken, sink = RecordingSink(), RecordingSink()
    train(apart(task, "unbroken"), unbroken, never)
    with pytest.raises(Killed):
        train(task, RecordingSink(killed_after=7), never)
    (task.checkpoints / "step-0000000006" / "weights.safetensors").write_bytes(b"rubbish")
    train(replace(task, attempt=2), sink, never)
    assert "step-0000000006" in sink.of(events_pb2.LogLine)[0].message
    assert [event.step for event in sink.of(events_pb2.ResumedFrom)] == [4]
    assert {step: values for step, values in numbers(unbroken).items() if step > 4} == numbers(sink)


def test_other_versions_rows_or_specs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume that could not stay exact ends with a fault that names what differs; more threads change nothing."""
    spec = replace(SPEC, optimization=replace(SPEC.optimization, max_steps=4))
    task = replace(tiny_inputs(tmp_path, spec), threads=2)
    with pytest.raises(Killed):
        train(task, RecordingSink(killed_after=3), never)

    def refusal(changed: TrainingInputs) -> TrainingFault:
        with pytest.raises(TrainingFault) as caught:
            train(changed, RecordingSink(), never)
        return caught.value

    fewer = refusal(replace(task, threads=1))
    assert (fewer.reason, fewer.fault) == (Reason.RESUME_MISMATCH, Fault.USER)
    assert "threads 2" in fewer.message
    assert "another spec" in refusal(replace(task, spec=replace(spec, seed=6))).message
    rows = task.train[0].read_text()
    task.train[0].write_text(rows.replace("cat", "cow"))
    other_rows = refusal(task)
    assert (other_rows.reason, other_rows.metadata["input"]) == (Reason.INTEGRITY, "train")
    task.train[0].write_text(rows)
    with monkeypatch.context() as patch:
        patch.setattr("services.trainer.engine.resolution.version", lambda _package: "0.1")
        assert "torch" in refusal(task).message
    assert train(replace(task, threads=3), RecordingSink(), never).result is RunResult.SUCCEEDED
    assert torch.get_num_threads() == 2


def test_the_progress_of_another_release_is_refused(tmp_path: Path) -> None:
    """A checkpoint that verifies and says what this release does not know is no fault of the code."""
    task = tiny_inputs(tmp_path)
    with pytest.raises(Killed):
        train(task, RecordingSink(killed_after=3), never)
    (found,) = checkpoints.saved(task.checkpoints)
    assert isinstance(found, checkpoints.SavedCheckpoint)
    saved = checkpoints.load(found)
    facts = {**saved.facts, "progress": {**saved.facts["progress"], "surprise": 1}}
    checkpoints.save(task.checkpoints, replace(saved, facts=facts), keep_last=1)
    with pytest.raises(TrainingFault, match="surprise") as caught:
        train(replace(task, attempt=2), RecordingSink(), never)
    assert caught.value.reason is Reason.RESUME_MISMATCH


PROGRAM = """
import os, signal, sys
from pathlib import Path
from services.trainer.engine.token_cache import TokenCache
from services.trainer.engine.training import train
from tests.support.training_run import RecordingSink, never, tiny_inputs

class Sink(RecordingSink):
    def emit(self, payload):
        super().emit(payload)
        if len(self.payloads) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

train(tiny_inputs(Path(sys.argv[1])), Sink(), never)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("reports", [3, 4, 8])
def test_a_process_killed_by_the_system_is_resumed_exactly(reports: int, tmp_path: Path) -> None:
    """SIGKILL after any report, in another process: the next attempt ends with the bits of an unbroken run."""
    task = tiny_inputs(tmp_path)
    unbroken, sink = RecordingSink(), RecordingSink()
    expected = train(apart(task, "unbroken"), unbroken, never)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(reports)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    found = train(replace(task, attempt=2), sink, never)
    assert found.artifact == expected.artifact
    first = sink.steps[0].step
    assert numbers(sink) == {step: values for step, values in numbers(unbroken).items() if step >= first}


def test_rows_from_the_cache_change_nothing(tmp_path: Path) -> None:
    """A run that made its tokens and one that found them have the same bits; so has one resumed from the other's."""
    task = tiny_inputs(tmp_path)
    plain = RecordingSink()
    train(apart(task, "plain"), plain, never)
    cached = replace(task, tokens=TokenCache(folder=tmp_path / "tokens", limit_bytes=1 << 20))
    for name in ("cold", "warm"):
        sink = RecordingSink()
        train(apart(cached, name), sink, never)
        assert numbers(sink) == numbers(plain), name
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    begun = RecordingSink(killed_after=4)
    with pytest.raises(Killed):
        train(apart(task, "resumed"), begun, never)
    resumed = RecordingSink()
    train(apart(cached, "resumed", attempt=2), resumed, never)
    assert resumed.of(events_pb2.ResumedFrom)
    assert numbers(plain).items() >= numbers(resumed).items()


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
def test_recompute_changes_no_bit(method: str, compute: ComputeType, tmp_path: Path) -> None:
    """A run with dropout that recomputes activations, killed and resumed under another policy, equals a plain one."""

    def with_policy(policy: ActivationRecompute) -> TrainingInputs:
        optimization = replace(SPEC.optimization, recompute=policy)
        return tiny_inputs(tmp_path, replace(SPEC, method=METHODS[method], compute=compute, optimization=optimization))

    plain, killed, resumed = RecordingSink(), RecordingSink(killed_after=4), RecordingSink()
    expected = train(apart(with_policy(ActivationRecompute.NONE), "plain"), plain, never)
    with pytest.raises(Killed):
        train(apart(with_policy(ActivationRecompute.FULL), "recomputed"), killed, never)
    result = train(apart(with_policy(ActivationRecompute.SELECTIVE), "recomputed", attempt=2), resumed, never)
    assert numbers(plain) == numbers(killed) | numbers(resumed)
    resolved = resumed.of(events_pb2.Resolved)[0].spec.optimization.recompute
    assert resolved == spec_pb2.ACTIVATION_RECOMPUTE_SELECTIVE
    weights = {file.path: file.sha256 for file in expected.artifact.files if file.path.endswith(".safetensors")}  # type: ignore[union-attr]
    assert weights.items() <= {file.path: file.sha256 for file in result.artifact.files}.items()  # type: ignore[union-attr]
