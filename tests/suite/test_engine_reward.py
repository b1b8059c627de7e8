"""Reward models on a tiny base: they learn which answer is better, and load in plain transformers and PEFT."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.faults import InvalidModel
from services.modelkit.loading import load_base
from services.registry.models.adapter_files import check_adapter
from services.registry.models.expected_tensors import expected
from services.registry.models.problems import Problems
from services.registry.models.shapes import Tensor
from services.trainer.engine.training import train
from services.trainer.engine.training_task import ArtifactKind, TrainingInputs, TrainingResult
from tests.support.task_rows import row_of, write_task_rows
from tests.support.training_run import SPEC, RecordingSink, never, tiny_inputs
from tuneforge.data.vocabulary import load_tokenizer
from tuneforge.specs.spec import Evaluation, FullMethod, LoraMethod, Method, RewardModelTask
from tuneforge.v1 import events_pb2

SPEC_40 = replace(
    SPEC,
    task=RewardModelTask(),
    optimization=replace(SPEC.optimization, max_steps=40, learning_rate=3e-3, warmup_ratio=0.0),
    evaluation=Evaluation(every_steps=20),
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def trained(folder: Path, method: Method) -> tuple[TrainingInputs, TrainingResult, RecordingSink]:
    """Trains a reward model."""
    task = tiny_inputs(folder, replace(SPEC_40, method=method))
    write_task_rows(task.train[0], RewardModelTask())
    task, sink = replace(task, validation=task.train), RecordingSink()
    return task, train(task, sink, never), sink


def margins(model: Any, folder: Path) -> list[float]:
    """Returns by how much a loaded model prefers the better answer of each row, text by text."""
    tokenizer, found = load_tokenizer(folder), []
    for number in range(10):
        row = row_of(RewardModelTask(), number)
        texts = [f"{row['prompt']}{row[name]}<|im_end|>" for name in ("chosen", "rejected")]
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        with torch.no_grad():
            rewards = [model(input_ids=torch.tensor([each])).logits[0, 0].item() for each in ids]
        found.append(rewards[0] - rewards[1])
    return found


def last(sink: RecordingSink) -> events_pb2.TaskMetrics:
    """Returns what was measured on the validation rows after the last step."""
    return [each for each in sink.of(events_pb2.TaskMetrics) if each.is_validation][-1]


def test_a_whole_reward_model_loads_in_transformers(tmp_path: Path) -> None:
    """Plain transformers reads the model and gives the margins that the run measured; the registry knows its shapes."""
    task, result, sink = trained(tmp_path, FullMethod())
    assert result.artifact_kind is ArtifactKind.MODEL
    assert last(sink).values["rewards_accuracy"] == 1.0
    model, report = AutoModelForSequenceClassification.from_pretrained(task.output, output_loading_info=True)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    found = margins(model.eval(), task.output)
    assert sum(found) / 10 == pytest.approx(last(sink).values["rewards_margin"], rel=1e-4)
    config = json.loads((task.output / "config.json").read_text())
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert expected(config["architectures"][0], config).required == shapes
    metadata = json.loads((task.output / "metadata.json").read_text())
    assert (metadata["task_type"], metadata["architecture"]) == ("SEQ_CLS", "LlamaForSequenceClassification")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_brings_its_head(tmp_path: Path) -> None:
    """PEFT loads it beside the plain base, with the same margins; the registry takes it, and nobody lets it write."""
    task, result, sink = trained(tmp_path, LoraMethod(rank=4))
    assert result.artifact
    assert last(sink).values["rewards_accuracy"] == 1.0
    base = AutoModelForSequenceClassification.from_pretrained(task.base[0].folder, num_labels=1)
    model = PeftModel.from_pretrained(base, task.output).eval()
    found = margins(model, task.output)
    assert sum(found) / 10 == pytest.approx(last(sink).values["rewards_margin"], rel=1e-4)
    artifact = LocalArtifact(
        folder=task.output, manifest=result.artifact, kind="adapter", ref_version="", digest=result.artifact.digest
    )
    with pytest.raises(InvalidModel, match="writes no text"):
        load_adapter(load_base(task.base, dtype=torch.float32).model, artifact, "judge")


@pytest.mark.parametrize(("width", "wrong"), [(64, False), (32, True)])
def test_the_registry_takes_a_head_that_fits(width: int, wrong: bool, tmp_path: Path) -> None:
    """The head of a reward model's adapter is as wide as its base; another one is refused."""
    config = {"r": 2, "target_modules": ["q_proj"], "task_type": "SEQ_CLS"}
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    own = [
        Tensor(name=f"{layer}.lora_A.weight", shape=(2, 64), dtype="F32"),
        Tensor(name=f"{layer}.lora_B.weight", shape=(64, 2), dtype="F32"),
        Tensor(name="base_model.model.score.weight", shape=(1, width), dtype="F32"),
    ]
    base = [
        Tensor(name="model.embed_tokens.weight", shape=(300, 64), dtype="F32"),
        Tensor(name="model.layers.0.self_attn.q_proj.weight", shape=(64, 64), dtype="F32"),
    ]
    problems = Problems()
    check_adapter(config, own, base, problems)
    assert bool(problems.found) == wrong
