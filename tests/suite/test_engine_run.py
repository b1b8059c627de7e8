"""Runs of the engine on a tiny model from rows to artifact, and the faults that a person can act on."""

import ctypes
import errno
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.grpckit.freed_memory import keep_freed_memory
from services.modelkit.adapters import load_adapter
from services.modelkit.artifacts import LocalArtifact
from services.modelkit.loading import load_base
from services.trainer.engine import beginnings, training
from services.trainer.engine.methods import prepare_model
from services.trainer.engine.tasks import language
from services.trainer.engine.training import preload, train
from services.trainer.engine.training_task import (
    ArtifactKind,
    Fault,
    RunResult,
    StopRequest,
    TrainingFault,
    TrainingInputs,
)
from tests.support.tiny_networks import network
from tests.support.training_run import SPEC, RecordingSink, never, stop_after, tiny_inputs
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError, build
from tuneforge.specs.spec import (
    ComputeType,
    DataConfig,
    Evaluation,
    FullMethod,
    Guards,
    LoraMethod,
    Method,
    OverlongPolicy,
    QloraMethod,
    Quantization,
    TrainingSpec,
)
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import events_pb2


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


LONGER = replace(SPEC, optimization=replace(SPEC.optimization, max_steps=60, learning_rate=2e-2))


INT8 = QloraMethod(lora=LoraMethod(rank=8), quantization=Quantization.INT8)


@pytest.mark.parametrize("method", [LoraMethod(rank=8), QloraMethod(lora=LoraMethod(rank=8)), INT8, FullMethod()])
def test_a_model_learns_its_rows(method: Method, tmp_path: Path) -> None:
    """With every method the loss falls to a small part of its start."""
    rate = 5e-3 if isinstance(method, FullMethod) else 2e-2
    spec = replace(LONGER, method=method, optimization=replace(LONGER.optimization, learning_rate=rate))
    sink = RecordingSink()
    result = train(tiny_inputs(tmp_path, spec, rows=4), sink, never)
    assert result.result is RunResult.SUCCEEDED
    assert sink.steps[0].loss > 4
    assert sink.steps[-1].loss < 0.5
    assert result.metrics["loss"] == sink.steps[-1].loss


def test_an_adapter_is_served_as_it_was_trained(tmp_path: Path) -> None:
    """The adapter's files name no path of this machine, and loaded beside their base they say what was learned."""
    evaluation = Evaluation(prompts=("Say cat 0.",), max_new_tokens=12)
    task = tiny_inputs(tmp_path, replace(LONGER, evaluation=evaluation), rows=2)
    sink = RecordingSink()
    result = train(task, sink, never)
    assert result.artifact_kind is ArtifactKind.ADAPTER
    assert result.artifact == build(task.output)
    assert str(tmp_path) not in (task.output / "adapter_config.json").read_text()
    assert sink.of(events_pb2.Sample)[-1].completion == "cat 0"
    artifact = LocalArtifact(
        folder=task.output, manifest=result.artifact, kind="adapter", ref_version="", digest=result.artifact.digest
    )
    base = load_base(task.base, dtype=torch.float32)
    model = load_adapter(base.model, artifact, "tuned")
    model.set_adapter("tuned")
    ids = base.tokenizer.encode("<|im_start|>user\nSay cat 0.<|im_end|>\n<|im_start|>assistant\n").ids
    answer = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    assert base.tokenizer.decode(answer.tolist()) == "cat 0"


def test_an_adapter_is_trained_on_a_base_with_an_adapter(tmp_path: Path) -> None:
    """Layers below are merged first: the first loss of a second run is about the last one of the first run."""
    task = tiny_inputs(tmp_path, LONGER, rows=4)
    first, second = RecordingSink(), RecordingSink()
    made = train(task, first, never)
    assert made.artifact
    layer = LocalArtifact(
        folder=task.output, manifest=made.artifact, kind="adapter", ref_version="", digest=made.artifact.digest
    )
    above = replace(task, base=[*task.base, layer], checkpoints=tmp_path / "second", output=tmp_path / "more")
    train(above, second, never)
    assert second.steps[0].loss < 0.5 < first.steps[0].loss


def test_a_whole_model_comes_with_its_tokenizer(tmp_path: Path) -> None:
    """Full fine-tuning gives a model folder that loads like its base and has other weights."""
    task = tiny_inputs(tmp_path, replace(SPEC, method=FullMethod()))
    result = train(task, RecordingSink(), never)
    assert result.artifact_kind is ArtifactKind.MODEL
    assert result.artifact
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.path for file in result.artifact.files}
    artifact = LocalArtifact(
        folder=task.output, manifest=result.artifact, kind="model", ref_version="", digest=result.artifact.digest
    )
    assert load_base([artifact], dtype=torch.float32).model
    before, after = (load_file(folder / "model.safetensors") for folder in (task.base[0].folder, task.output))
    assert set(before) == set(after)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_every_choice_is_reported(tmp_path: Path) -> None:
    """Resolved holds no AUTO and no default left open, the versions, and the counts."""
    spec = replace(SPEC, method=LoraMethod(rank=2), compute=ComputeType.AUTO)
    sink = RecordingSink()
    train(tiny_inputs(tmp_path, spec), sink, never)
    (resolved,) = sink.of(events_pb2.Resolved)
    assert resolved.spec.precision.compute in (1 + 1, 1 + 2)
    assert resolved.spec.optimization.rows_per_micro_batch == 4
    assert resolved.spec.data.max_tokens == 512
    assert set(resolved.environment) >= {"python", "torch", "transformers", "peft", "device", "threads", "platform"}
    assert (resolved.rows, resolved.rows_dropped) == (10, 0)
    weights = load_file(tmp_path / "output" / "adapter_model.safetensors")
    assert resolved.trainable_parameters == sum(tensor.numel() for tensor in weights.values())
    base = sum(tensor.numel() for tensor in load_file(tmp_path / "base" / "model.safetensors").values())
    assert resolved.total_parameters == base + resolved.trainable_parameters


def test_the_size_of_a_micro_batch_does_not_matter(tmp_path: Path) -> None:
    """One row at once gives the losses of the whole step at once, up to rounding."""
    losses = []
    for rows in (1, 3, 4):
        optimization = replace(SPEC.optimization, rows_per_micro_batch=rows)
        spec = replace(SPEC, method=LoraMethod(rank=4), optimization=optimization)
        sink = RecordingSink()
        train(tiny_inputs(tmp_path / str(rows), spec), sink, never)
        losses.append([step.loss for step in sink.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] == pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize("method", [LoraMethod(rank=4), FullMethod()])
def test_parts_add_up_in_bf16_too(method: Method, tmp_path: Path) -> None:
    """Weights that are cast once a step serve every part: the first gradient is the same up to rounding."""
    norms = []
    for rows in (1, 4):
        optimization = replace(SPEC.optimization, rows_per_micro_batch=rows, max_steps=1)
        spec = replace(SPEC, method=method, optimization=optimization, compute=ComputeType.BF16)
        sink = RecordingSink()
        train(tiny_inputs(tmp_path / str(rows), spec), sink, never)
        norms.append((sink.steps[0].loss, sink.steps[0].grad_norm))
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


@pytest.mark.parametrize("method", [LoraMethod(rank=4), QloraMethod(lora=LoraMethod(rank=4)), FullMethod()])
def test_how_a_base_is_stored_does_not_matter(method: Method, tmp_path: Path) -> None:
    """The same weights in files of three formats give the same first loss, to the last bit, and all learn.

    Later ones differ slightly: beside bfloat16 layers, PEFT rounds the first values of an adapter.
    """
    losses = []
    for name in ("bfloat16", "float32", "float16"):
        folder = tmp_path / name
        tiny_inputs(folder)
        path = folder / "base" / "model.safetensors"
        # What both formats of 16 bits hold.
        weights = {key: tensor.to(torch.bfloat16).to(torch.float16) for key, tensor in load_file(path).items()}
        stored = {key: tensor.to(getattr(torch, name)) for key, tensor in weights.items()}
        save_file(stored, path, metadata={"format": "pt"})
        config = folder / "base" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": name}))
        sink = RecordingSink()
        train(tiny_inputs(folder, replace(SPEC, method=method, compute=ComputeType.BF16)), sink, never)
        losses.append([step.loss for step in sink.steps])
    assert losses[0][0] == losses[1][0] == losses[2][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[1] == losses[2]


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("method", [LoraMethod(rank=4), QloraMethod(lora=LoraMethod(rank=4)), FullMethod()])
def test_other_families_are_trained_too(family: str, method: Method, tmp_path: Path) -> None:
    """GPT-2, which keeps its linear weights transposed, and Qwen 2, which has biases, learn with every method."""
    tiny_inputs(tmp_path)
    model = network(family, vocabulary=1024, positions=256)
    model.save_pretrained(tmp_path / "base")
    rate = 5e-3 if isinstance(method, FullMethod) else 2e-2
    optimization = replace(SPEC.optimization, learning_rate=rate, max_steps=15)
    data = DataConfig(max_tokens=128)
    spec = replace(SPEC, method=method, optimization=optimization, data=data, compute=ComputeType.BF16)
    sink = RecordingSink()
    result = train(tiny_inputs(tmp_path, spec), sink, never)
    assert result.result is RunResult.SUCCEEDED
    # Random weights of usual size: a frozen head bounds how far adapters get.
    assert sink.steps[-1].loss < sink.steps[0].loss - (1.0 if isinstance(method, FullMethod) else 0.1)


@pytest.mark.parametrize(
    "method", [LoraMethod(rank=4), QloraMethod(lora=LoraMethod(rank=4)), INT8, FullMethod(freeze_layers=1)]
)
def test_what_is_frozen_stays_bit_for_bit(method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run every weight that is not to move is what was loaded, and each that is to move has moved."""
    prepared: list[Any] = []

    def kept(*arguments: Any) -> Any:
        found = prepare_model(*arguments)
        prepared.append((found.model, {name: p.detach().clone() for name, p in found.model.named_parameters()}))
        return found

    monkeypatch.setattr(training, "prepare_model", kept)
    train(tiny_inputs(tmp_path, replace(SPEC, method=method)), RecordingSink(), never)
    ((model, before),) = prepared
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert 0 < len(moved) < len(before)
    assert isinstance(method, FullMethod) or all("lora_" in name for name in moved)


def test_the_validation_loss_is_the_mean_over_tokens(tmp_path: Path) -> None:
    """On the training rows, with a rate too small to learn, it is the mean of the steps of one pass."""
    spec = replace(
        SPEC,
        method=LoraMethod(rank=4),
        optimization=replace(SPEC.optimization, max_steps=3, learning_rate=1e-12),
        guards=Guards(allow_no_effect=True),
    )
    task = tiny_inputs(tmp_path, spec)
    sink = RecordingSink()
    result = train(replace(task, validation=task.train), sink, never)
    (evaluation,) = sink.of(events_pb2.EvaluationMetrics)
    count = sum(step.supervised_tokens for step in sink.steps)
    mean = sum(step.loss * step.supervised_tokens for step in sink.steps) / count
    assert evaluation.loss == pytest.approx(mean, rel=1e-5)
    assert (evaluation.supervised_tokens, evaluation.rows, evaluation.step) == (count, 10, 3)
    assert result.metrics["evaluation_loss"] == evaluation.loss


def test_a_cancelled_run_saves_nothing(tmp_path: Path) -> None:
    """CANCEL ends the run after the step at hand; no checkpoint and no artifact are written."""
    task, sink = (
        tiny_inputs(tmp_path, replace(SPEC, checkpointing=replace(SPEC.checkpointing, every_steps=0))),
        RecordingSink(),
    )
    result = train(task, sink, stop_after(sink, 2, StopRequest.CANCEL))
    assert (result.result, result.step, result.artifact) == (RunResult.CANCELLED, 2, None)
    assert not task.checkpoints.exists()
    assert not task.output.exists()


def test_a_run_can_be_stopped_before_its_first_step(tmp_path: Path) -> None:
    """A stop that is asked for while the model loads ends the run before it learns."""
    task, sink = tiny_inputs(tmp_path), RecordingSink()
    result = train(task, sink, lambda: StopRequest.CHECKPOINT)
    assert (result.result, result.step, sink.steps) == (RunResult.INTERRUPTED, 0, [])


def test_preloading_imports_only() -> None:
    """The fork server's list can be imported; a child then finds all of it."""
    preload()
    if keep_freed_memory(64 << 20):  # this process is no worker: it would keep for ever what any later test has used
        ctypes.CDLL(None).malloc_trim(0)


def fault_of(task: TrainingInputs) -> TrainingFault:
    """Returns the fault that a run ends with."""
    with pytest.raises(TrainingFault) as caught:
        train(task, RecordingSink(), never)
    assert caught.value.message
    assert caught.value.cure
    return caught.value


def with_data(spec: TrainingSpec, **options: Any) -> TrainingSpec:
    """Returns a spec with other data options."""
    return replace(spec, data=DataConfig(**options))


def test_unknown_layers_are_answered_with_those_that_exist(tmp_path: Path) -> None:
    """The fault names the layers that were not found and lists the ones to choose from."""
    fault = fault_of(tiny_inputs(tmp_path, replace(SPEC, method=LoraMethod(target_modules=("q_proj", "query")))))
    assert (fault.reason, fault.fault) == (Reason.INVALID_FIELD, Fault.USER)
    assert "query" in fault.message
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in fault.cure


@pytest.mark.parametrize("quantized", [False, True])
def test_a_rank_above_a_layers_side_is_refused(quantized: bool, tmp_path: Path) -> None:
    """The fault names the layer and the largest rank; of a layer in 4 bits too."""
    lora = LoraMethod(rank=33)
    fault = fault_of(tiny_inputs(tmp_path, replace(SPEC, method=QloraMethod(lora=lora) if quantized else lora)))
    assert fault.reason is Reason.INVALID_FIELD
    assert fault.metadata["limit"] == "32"
    assert fault.metadata["layer"] in {"k_proj", "v_proj"}


def test_overlong_rows_are_dropped_cut_or_refused(tmp_path: Path) -> None:
    """Each policy does what it says: DROP leaves nothing, TRUNCATE nothing of the completion, REFUSE names the line."""
    task = tiny_inputs(tmp_path)
    for policy in (OverlongPolicy.DROP, OverlongPolicy.TRUNCATE):
        fault = fault_of(replace(task, spec=with_data(SPEC, max_tokens=8, overlong=policy)))
        assert (fault.reason, fault.metadata["dropped"]) == (Reason.NOTHING_TO_LEARN, "10")
        assert ("TRUNCATE" in fault.cure) is (policy is OverlongPolicy.DROP)
    fault = fault_of(replace(task, spec=with_data(SPEC, max_tokens=8, overlong=OverlongPolicy.REFUSE)))
    assert (fault.reason, fault.metadata["line"]) == (Reason.INVALID_DATA, "1")


def test_rows_that_leak_are_refused_where_that_is_asked(tmp_path: Path) -> None:
    """Two of the rows for validation are learned from: DATA_LEAK before the first step; one of its own is fine."""
    task = tiny_inputs(tmp_path, with_data(SPEC, fail_on_leak=True))
    lines = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    other = tmp_path / "validation.jsonl"
    other.write_text(lines[0].replace("cat 0", "dog 0") + lines[3] + lines[7])
    sink = RecordingSink()
    with pytest.raises(TrainingFault) as caught:
        train(replace(task, validation=[other]), sink, never)
    assert (caught.value.reason, caught.value.metadata["rows"]) == (Reason.DATA_LEAK, "2")
    assert not sink.steps
    other.write_text(lines[0].replace("cat 0", "dog 0"))
    assert train(replace(task, validation=[other]), sink, never).result is RunResult.SUCCEEDED


def test_rows_that_were_cut_are_reported(tmp_path: Path) -> None:
    """Under TRUNCATE a line says how many rows lost their end."""
    sink = RecordingSink()
    train(tiny_inputs(tmp_path, with_data(SPEC, max_tokens=26, overlong=OverlongPolicy.TRUNCATE)), sink, never)
    (line,) = sink.of(events_pb2.LogLine)
    assert "longer than 26 tokens: 0 left out, 10 cut" in line.message


def test_a_prompt_without_room_for_its_completion_is_refused(tmp_path: Path) -> None:
    """A prompt and its completion must fit the model's positions together."""
    evaluation = Evaluation(prompts=("Say cat 0.", "word " * 300), max_new_tokens=100)
    fault = fault_of(tiny_inputs(tmp_path, replace(SPEC, evaluation=evaluation)))
    assert (fault.reason, fault.metadata["field"]) == (Reason.INVALID_FIELD, "evaluation.prompts[1]")
    assert fault.metadata["limit"] == "412"


def test_more_tokens_than_the_model_takes_are_refused(tmp_path: Path) -> None:
    """`data.max_tokens` above the model's positions is a fault before anything is computed."""
    fault = fault_of(tiny_inputs(tmp_path, with_data(SPEC, max_tokens=513)))
    assert (fault.reason, fault.metadata["limit"]) == (Reason.INVALID_FIELD, "512")


def test_conversations_need_a_chat_template(tmp_path: Path) -> None:
    """A base without a template cannot learn conversations; the cure says what to do instead."""
    task = tiny_inputs(tmp_path)
    path = task.base[0].folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
    fault = fault_of(tiny_inputs(tmp_path))
    assert (fault.reason, fault.fault) == (Reason.INVALID_DATA, Fault.USER)
    assert "chat template" in fault.message


@pytest.mark.parametrize(
    ("name", "place"),
    [("model.safetensors", -1), ("tokenizer.json", 0), ("tokenizer_config.json", 0), ("config.json", 0)],
)
def test_a_damaged_base_is_not_read(name: str, place: int, tmp_path: Path) -> None:
    """A byte that changed after the manifest was made ends the run with the file's name, whatever it breaks first.

    It is no fault of the model: a damaged copy is fetched again.
    """
    task, sink = tiny_inputs(tmp_path), RecordingSink()
    file = task.base[0].folder / name
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        train(task, sink, never)
    assert caught.value.path == name
    assert not sink.steps


def test_malformed_rows_are_named(tmp_path: Path) -> None:
    """A row that cannot be read ends the run with its line."""
    task = tiny_inputs(tmp_path)
    task.train[0].write_text(task.train[0].read_text() + '{"messages": [\n')
    fault = fault_of(task)
    assert fault.reason is Reason.INVALID_DATA
    assert "line 11" in fault.message


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """A rate that blows the weights up is a user fault, and the step is not reported."""
    optimization = replace(SPEC.optimization, learning_rate=1e30, max_grad_norm=0.0)
    sink = RecordingSink()
    with pytest.raises(TrainingFault) as caught:
        train(tiny_inputs(tmp_path, replace(SPEC, method=FullMethod(), optimization=optimization)), sink, never)
    assert (caught.value.reason, caught.value.fault) == (Reason.LOSS_NOT_FINITE, Fault.USER)
    assert "learning_rate" in caught.value.cure
    assert all(math.isfinite(step.loss) for step in sink.steps)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that finds no space is warned of and the run goes on; the next one is saved."""
    real, calls = os.fsync, 0

    def full_at_first(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_first)
    sink = RecordingSink()
    result = train(tiny_inputs(tmp_path), sink, never)
    (line,) = sink.of(events_pb2.LogLine)
    assert line.severity == events_pb2.LOG_SEVERITY_WARNING
    assert "The disk is full, so the state after step 2 was not saved." in line.message
    assert [event.step for event in sink.of(events_pb2.CheckpointSaved)] == [4, 6, 8]
    assert result.result is RunResult.SUCCEEDED


def test_broken_weights_are_not_published(tmp_path: Path) -> None:
    """An only step that blows the weights up has a finite loss; the run fails all the same."""
    optimization = replace(SPEC.optimization, max_steps=1, learning_rate=1e39, max_grad_norm=0.0, warmup_ratio=0.0)
    task = tiny_inputs(tmp_path, replace(SPEC, method=FullMethod(), optimization=optimization))
    fault = fault_of(task)
    assert fault.reason is Reason.LOSS_NOT_FINITE
    assert not task.output.exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory: 9")]
)
def test_memory_that_runs_out_is_named(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch calls it, the fault is OUT_OF_MEMORY with what to lower."""

    def exhausted(*_: Any) -> None:
        raise error

    monkeypatch.setattr(language, "supervised_loss", exhausted)
    fault = fault_of(tiny_inputs(tmp_path))
    assert (fault.reason, fault.fault) == (Reason.OUT_OF_MEMORY, Fault.USER)
    assert "rows_per_micro_batch" in fault.cure


def test_bfloat16_that_is_not_native_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed as asked, and the run says that it is slow."""
    monkeypatch.setattr(beginnings, "computes_bf16", lambda _device: False)
    sink = RecordingSink()
    optimization = replace(SPEC.optimization, max_steps=1)
    task = tiny_inputs(tmp_path, replace(SPEC, compute=ComputeType.BF16, optimization=optimization))
    assert train(task, sink, never).result is RunResult.SUCCEEDED
    assert any("BF16 is not native" in line.message for line in sink.of(events_pb2.LogLine))


def test_float16_on_a_cpu_is_told_and_replaced(tmp_path: Path) -> None:
    """A CPU has no use for it: the run says what it computes in, and that is what the result's spec says."""
    sink = RecordingSink()
    train(tiny_inputs(tmp_path, replace(SPEC, compute=ComputeType.FP16, deterministic=True)), sink, never)
    told = [line.message for line in sink.of(events_pb2.LogLine) if line.severity == events_pb2.LOG_SEVERITY_WARNING]
    (resolved,) = sink.of(events_pb2.Resolved)
    used = spec_from_proto(resolved.spec)
    assert used.compute in (ComputeType.BF16, ComputeType.FP32)
    assert used.deterministic
    assert any("FP16 is for GPUs" in line and used.compute.name in line for line in told)
