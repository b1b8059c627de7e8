"""Runs of every task on a tiny model, from rows to what the files of the result say."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.modelkit.artifacts import LocalArtifact
from services.modelkit.loading import load_base
from services.trainer.engine import checkpoints
from services.trainer.engine.training import train
from services.trainer.engine.training_task import Fault, RunResult, TrainingFault, TrainingInputs
from tests.support.task_rows import write_task_rows
from tests.support.tiny_model import CHATML, make_tiny_model, write_rows
from tests.support.training_run import SPEC, RecordingSink, never, tiny_inputs
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.specs.spec import (
    ContinuedPretrainingTask,
    DataConfig,
    Evaluation,
    FullMethod,
    LoraMethod,
    Method,
    PreferenceLoss,
    PreferenceTask,
    RewardModelTask,
    SupervisedTask,
    Task,
    TrainingSpec,
)
from tuneforge.v1 import events_pb2, spec_pb2

LONGER = replace(SPEC, optimization=replace(SPEC.optimization, max_steps=40, learning_rate=5e-3, warmup_ratio=0.0))
METHODS: list[Method] = [LoraMethod(rank=8), FullMethod()]
TASKS: list[Task] = [SupervisedTask(), ContinuedPretrainingTask(), PreferenceTask(), RewardModelTask()]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def inputs_of(folder: Path, spec: TrainingSpec, *, rows: int = 10) -> TrainingInputs:
    """Returns the inputs of a run on rows of the spec's task."""
    task = tiny_inputs(folder, spec)
    assert spec.task is not None
    write_task_rows(task.train[0], spec.task, rows)
    return task


@pytest.mark.parametrize("loss", PreferenceLoss)
@pytest.mark.parametrize("method", METHODS)
def test_preferences_are_learned(method: Method, loss: PreferenceLoss, tmp_path: Path) -> None:
    """At the start nothing is preferred to what the reference prefers; at the end every better answer is."""
    spec = replace(
        LONGER, task=PreferenceTask(beta=0.5, loss=loss), method=method, evaluation=Evaluation(every_steps=20)
    )
    spec = replace(spec, optimization=replace(spec.optimization, learning_rate=2e-3, max_steps=40))
    task = inputs_of(tmp_path, spec)
    sink = RecordingSink()
    result = train(replace(task, validation=task.train), sink, never)
    assert result.result is RunResult.SUCCEEDED
    measured = sink.of(events_pb2.TaskMetrics)
    steps = [each for each in measured if not each.is_validation]
    assert [each.step for each in steps] == list(range(1, 41))
    assert abs(steps[0].values["rewards_margin"]) < 1e-4
    found = [each for each in measured if each.is_validation]
    assert [(each.step, each.rows) for each in found] == [(20, 10), (40, 10)]
    assert found[-1].values["rewards_accuracy"] == 1.0
    if loss is PreferenceLoss.IPO:  # which wants a margin of 1 / 2 and no more
        assert found[-1].values["rewards_margin"] == pytest.approx(0.5, abs=0.1)
    else:
        assert found[-1].values["rewards_margin"] > 1
    # Nothing is preferred yet: log 2 for DPO, the square of 1 / (2 beta) for IPO.
    start = 1.0 if loss is PreferenceLoss.IPO else 0.693147
    assert sink.steps[0].loss == pytest.approx(start, abs=1e-3)
    assert sink.of(events_pb2.EvaluationMetrics)[-1].loss < start / 2


def test_a_reference_is_kept_beside_the_checkpoints(tmp_path: Path) -> None:
    """When all weights move the reference is on disk before the first step; beside adapters there is none."""
    task = inputs_of(tmp_path, replace(SPEC, task=PreferenceTask(), method=FullMethod()))
    train(task, RecordingSink(), never)
    assert [path.suffix for path in (tmp_path / "reference").iterdir()] == [".safetensors"]
    other = inputs_of(tmp_path / "adapters", replace(SPEC, task=PreferenceTask()))
    train(other, RecordingSink(), never)
    assert not (tmp_path / "adapters" / "reference").exists()


def test_texts_are_learned_whole(tmp_path: Path) -> None:
    """Every token but the first of a piece is learned; long texts are divided, not left out."""
    spec = replace(SPEC, task=ContinuedPretrainingTask(), data=DataConfig(max_tokens=24), method=FullMethod())
    spec = replace(spec, optimization=replace(spec.optimization, rows_per_step=1))
    task = inputs_of(tmp_path, spec, rows=6)
    sink = RecordingSink()
    train(task, sink, never)
    (resolved,) = sink.of(events_pb2.Resolved)
    assert resolved.rows > 6
    assert resolved.rows_dropped == 0
    assert resolved.spec.data.overlong == spec_pb2.OVERLONG_POLICY_SPLIT
    assert {step.tokens - step.supervised_tokens for step in sink.steps} == {1}
    assert max(step.tokens for step in sink.steps) == 24
    assert sink.steps[-1].loss < sink.steps[0].loss


def test_a_base_from_configuration_alone_is_pretrained(tmp_path: Path) -> None:
    """Weights that nobody stored are drawn from a seed, learn texts, and come out as a model that loads."""
    spec = replace(LONGER, task=ContinuedPretrainingTask(), method=FullMethod())
    task = inputs_of(tmp_path, spec)
    folder = tmp_path / "base"
    (folder / "model.safetensors").unlink()
    (folder / "initialization.json").write_text('{"seed": 7}')
    manifest = build(folder)
    base = LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)
    sink = RecordingSink()
    result = train(replace(task, base=[base]), sink, never)
    assert result.artifact is not None
    assert sink.steps[0].loss > 5
    assert sink.steps[-1].loss < 2
    made = LocalArtifact(
        folder=task.output, manifest=result.artifact, kind="model", ref_version="", digest=result.artifact.digest
    )
    assert load_base([made], dtype=torch.float32).initial_weights is None


@pytest.mark.parametrize("method", METHODS, ids=["lora", "full"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_the_parts_of_a_step_add_up_to_the_step(task: Task, method: Method, tmp_path: Path) -> None:
    """Row by row or all at once: loss, gradient and figures of a step are the same, whatever the task counts."""
    found = []
    for rows in (1, 4):
        optimization = replace(SPEC.optimization, max_steps=2, learning_rate=1e-3, rows_per_micro_batch=rows)
        asked = replace(SPEC, task=task, method=method, optimization=optimization)
        sink = RecordingSink()
        train(inputs_of(tmp_path / str(rows), asked), sink, never)
        figures = [list(each.values.values()) for each in sink.of(events_pb2.TaskMetrics)]
        found.append(([(step.loss, step.grad_norm) for step in sink.steps], figures))
    assert len(found[0][0]) == 2
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    for one_figures, others in zip(found[0][1], found[1][1], strict=True):
        assert one_figures == pytest.approx(others, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_every_task_is_measured_ends_early_and_gives_its_best(task: Task, tmp_path: Path) -> None:
    """A loss on other rows, samples beside it where the model writes, the end in time, the weights of the best step."""
    prompts = () if isinstance(task, RewardModelTask) else ("Say cat 0.",)
    evaluation = Evaluation(
        every_steps=2, patience=2, use_best=True, min_improvement=100.0, prompts=prompts, max_new_tokens=2
    )
    asked = replace(SPEC, task=task, method=FullMethod(), evaluation=evaluation)
    inputs, sink = inputs_of(tmp_path, asked), RecordingSink()
    result = train(replace(inputs, validation=inputs.train), sink, never)
    assert (result.result, result.step) == (RunResult.SUCCEEDED, 6)
    measured = sink.of(events_pb2.EvaluationMetrics)
    assert [(each.step, each.is_best, each.rows) for each in measured] == [
        (2, True, 10),
        (4, False, 10),
        (6, False, 10),
    ]
    assert [each.step for each in sink.of(events_pb2.Sample)] == [step for step in (2, 4, 6) for _ in prompts]
    best = checkpoints.load_step(inputs.checkpoints, 2)
    assert best is not None
    written = load_file(inputs.output / "model.safetensors")
    for name, tensor in best.tensors["weights"].items():
        assert torch.equal(written[name], tensor), name
    assert result.metrics["best_evaluation_loss"] == measured[0].loss


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (ContinuedPretrainingTask(), SupervisedTask()),
        (PreferenceTask(), SupervisedTask()),
        (SupervisedTask(), PreferenceTask()),
        (RewardModelTask(), ContinuedPretrainingTask()),
    ],
)
def test_rows_of_another_task_are_refused(task: Task, rows: Task, tmp_path: Path) -> None:
    """What the rows are and what the task learns stand in the fault; nothing is trained."""
    inputs = inputs_of(tmp_path, replace(SPEC, task=task))
    write_task_rows(inputs.train[0], rows)
    with pytest.raises(TrainingFault, match="cannot be learned by this task") as caught:
        train(inputs, RecordingSink(), never)
    assert (caught.value.reason, caught.value.fault) == (Reason.INVALID_DATA, Fault.USER)


TOOL = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Tells the time.",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
TOOL_ROW: dict[str, Any] = {
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Noon."},
    ],
}
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OFFERED_ONLY = {**TOOL_ROW, "messages": [TOOL_ROW["messages"][0], TOOL_ROW["messages"][-1]]}


def tool_inputs(folder: Path, template: str, row: dict[str, Any]) -> TrainingInputs:
    """Returns the inputs of a run on a row with tools, with a chat template of its own."""
    make_tiny_model(folder / "base")
    path = folder / "base" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"chat_template": template}))
    write_rows(folder / "rows.jsonl", 2)
    task = tiny_inputs(folder, replace(SPEC, optimization=replace(SPEC.optimization, max_steps=2)))
    task.train[0].write_text(json.dumps(row) + "\n")
    return task


def test_calls_of_tools_are_learned(tmp_path: Path) -> None:
    """With a template that writes tools, the assistant's call and its answer are what is learned."""
    sink = RecordingSink()
    task = tool_inputs(tmp_path, WITH_TOOLS, TOOL_ROW)
    assert train(task, sink, never).result is RunResult.SUCCEEDED
    tokenizer = load_base(task.base, dtype=torch.float32).tokenizer
    learned = '<tool_call>{"name": "clock", "arguments": {"zone": "UTC"}}</tool_call><|im_end|>', "Noon.<|im_end|>"
    expected = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in learned)
    assert sink.steps[0].supervised_tokens == expected


@pytest.mark.parametrize("row", [TOOL_ROW, OFFERED_ONLY], ids=["called", "offered"])
def test_a_template_that_ignores_tools_is_refused(row: dict[str, Any], tmp_path: Path) -> None:
    """A model whose template leaves tools out would learn calls of tools that it never saw."""
    with pytest.raises(TrainingFault, match="tool") as caught:
        train(tool_inputs(tmp_path, CHATML, row), RecordingSink(), never)
    assert (caught.value.reason, caught.value.fault) == (Reason.INVALID_MODEL, Fault.USER)
    assert "template" in caught.value.cure
