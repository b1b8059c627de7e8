"""Merged models: what the adapter says, in every method; refused where they say something else, and nothing is lost."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.training import train
from services.trainer.engine.training_task import ArtifactKind, TrainingFault, TrainingInputs, TrainingResult
from tests.support.tiny_networks import network
from tests.support.training_run import SPEC, RecordingSink, apart, never, tiny_inputs
from tuneforge.checks import Check
from tuneforge.errors import Reason
from tuneforge.manifest import build
from tuneforge.specs.spec import (
    ComputeType,
    DataConfig,
    Evaluation,
    LoraMethod,
    Merge,
    MergeMethod,
    Method,
    QloraMethod,
    TrainingSpec,
    WeightFormat,
)
from tuneforge.v1 import events_pb2

METHODS: dict[str, Method] = {
    "lora": LoraMethod(rank=4),
    "rslora": LoraMethod(rank=4, use_rslora=True),
    "dora": LoraMethod(rank=4, use_dora=True),
    "qlora": QloraMethod(lora=LoraMethod(rank=4)),
    "qlora-dora": QloraMethod(lora=LoraMethod(rank=4, use_dora=True)),
}
FAST = replace(SPEC.optimization, max_steps=20, learning_rate=2e-2)
MERGED = replace(SPEC, merge=Merge(), optimization=FAST)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def divergence(result: TrainingResult) -> Check:
    """Returns the check of the merged model."""
    (found,) = (check for check in result.checks if check.name == "merge_divergence")
    return found


def stored_as(folder: Path, dtype: torch.dtype) -> None:
    """Makes the inputs of a folder anew with a base that is stored in another format."""
    tiny_inputs(folder)
    path, config = folder / "base" / "model.safetensors", folder / "base" / "config.json"
    weights = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    content = json.loads(config.read_text()) | {"dtype": str(dtype).removeprefix("torch.")}
    config.write_text(json.dumps(content))


def layer(task: TrainingInputs, result: TrainingResult) -> LocalArtifact:
    """Returns the adapter that a run made."""
    assert result.artifact
    return LocalArtifact(
        folder=task.output, manifest=result.artifact, kind="adapter", ref_version="", digest=result.artifact.digest
    )


@pytest.mark.parametrize("compute", [ComputeType.FP32, ComputeType.BF16])
@pytest.mark.parametrize("name", METHODS)
def test_a_merged_model_says_what_its_adapter_says(name: str, compute: ComputeType, tmp_path: Path) -> None:
    """In float32 the two differ by rounding alone, whatever the adapter is and however its base was kept."""
    stored_as(tmp_path, torch.bfloat16)
    spec = replace(MERGED, method=METHODS[name], compute=compute, merge=Merge(format=WeightFormat.FP32))
    task = tiny_inputs(tmp_path, spec)
    result = train(task, RecordingSink(), never)
    check = divergence(result)
    assert (result.artifact_kind, check.passed, check.score) == (ArtifactKind.MODEL, True, 1.0), check.message
    # PEFT takes DoRA's norms of 4-bit weights in the format in which these were loaded.
    is_rounded = name == "qlora-dora" and compute is ComputeType.BF16
    assert result.metrics["merge_max_logit_difference"] < (0.05 if is_rounded else 1e-4)
    assert result.metrics["merge_max_kl"] < (1e-4 if is_rounded else 1e-5)
    assert abs(result.metrics["merge_loss_difference"]) < (1e-3 if is_rounded else 1e-5)
    assert float(check.details["adapter_loss"]) < 3  # the adapter has learned, so the base alone would differ
    weights = load_file(task.output / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert set(weights) == set(load_file(task.base[0].folder / "model.safetensors"))


def test_files_of_a_merged_model(tmp_path: Path) -> None:
    """001-12: a whole model with its tokenizer, the adapter in a folder of its own, and documents that say so."""
    stored_as(tmp_path, torch.bfloat16)
    task = tiny_inputs(tmp_path, replace(MERGED, method=METHODS["qlora"], merge=Merge(min_agreement=0.5)))
    result = train(task, RecordingSink(), never)
    assert result.artifact == build(task.output)
    paths = {file.path for file in result.artifact.files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= paths
    assert {"adapters/adapter_config.json", "adapters/adapter_model.safetensors"} <= paths
    assert not any(path.startswith("adapter_") for path in paths)
    assert {tensor.dtype for tensor in load_file(task.output / "model.safetensors").values()} == {torch.bfloat16}
    told = json.loads((task.output / "metadata.json").read_text())
    assert (told["merged"]["method"], told["merged"]["base_quantization"]) == ("qlora", "nf4")
    assert told["merged"]["divergence"]["top1_agreement"] == result.metrics["merge_top1_agreement"]
    profile = json.loads((task.output / "aim_profile.json").read_text())
    assert profile["precision"] == "bf16"
    assert profile["merge_info"] == told["merged"]
    assert profile["quantization_info"]["bnb_4bit_quant_type"] == "nf4"


def test_rounding_is_measured(tmp_path: Path) -> None:
    """Weights rounded to bfloat16 are further from the adapter than those in float32, and the figures say so."""
    found = {}
    task = tiny_inputs(tmp_path, MERGED)
    for number, merge in enumerate([Merge(format=WeightFormat.FP32), Merge(format=WeightFormat.BF16)]):
        spec = replace(MERGED, merge=replace(merge, min_agreement=0.0))
        result = train(apart(replace(task, spec=spec), str(number)), RecordingSink(), never)
        found[merge.format] = result.metrics["merge_mean_kl"]
    assert found[WeightFormat.FP32] < 1e-6 < found[WeightFormat.BF16]


def test_a_merged_model_that_says_something_else_is_refused(tmp_path: Path) -> None:
    """The result is then the adapter, with a failed check that says by how much, and a warning; nothing else stays."""
    tiny_inputs(tmp_path)
    path = tmp_path / "base" / "model.safetensors"
    # Scores this large choose one position each, so that rounding decides which.
    loud = {
        name: tensor * (3000.0 if "q_proj" in name or "k_proj" in name else 1.0)
        for name, tensor in load_file(path).items()
    }
    save_file(loud, path, metadata={"format": "pt"})
    sink = RecordingSink()
    again = apart(
        tiny_inputs(tmp_path, replace(MERGED, merge=Merge(format=WeightFormat.BF16, min_agreement=1.0))), "refused"
    )
    result = train(again, sink, never)
    check = divergence(result)
    assert result.artifact_kind is ArtifactKind.ADAPTER
    assert not check.passed
    assert check.score is not None
    assert check.score < 1.0
    assert f"{1.0 - check.score:.3%} less than the 100.000%" in check.message
    assert result.artifact
    paths = {file.path for file in result.artifact.files}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= paths
    assert not any(path.startswith(("adapters/", "model")) for path in paths)
    (warning,) = (line for line in sink.of(events_pb2.LogLine) if line.severity == events_pb2.LOG_SEVERITY_WARNING)
    assert "not a merged model" in warning.message
    assert sorted(path.name for path in again.output.parent.iterdir()) == ["checkpoints", "output"]


def test_a_weight_that_float16_does_not_hold_keeps_the_adapter(tmp_path: Path) -> None:
    """A merged model that cannot be written is refused by name, and the run still ends with its adapter."""
    task = tiny_inputs(tmp_path)
    path = tmp_path / "base" / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.self_attn.k_proj.weight"
    weights[name][0, 0] = 1e6
    save_file(weights, path, metadata={"format": "pt"})
    spec = replace(MERGED, merge=Merge(format=WeightFormat.FP16))
    result = train(apart(tiny_inputs(tmp_path, spec), "float16"), RecordingSink(), never)
    assert result.artifact_kind is ArtifactKind.ADAPTER
    assert name in divergence(result).message
    assert task.base


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
def test_other_families_are_merged_too(family: str, method: str, tmp_path: Path) -> None:
    """GPT-2 keeps its weights transposed, Qwen 2 has biases: both are merged as PEFT computes them."""
    tiny_inputs(tmp_path)
    network(family, vocabulary=1024, positions=256).save_pretrained(tmp_path / "base")
    spec = replace(MERGED, method=METHODS[method], data=DataConfig(max_tokens=128), merge=Merge())
    result = train(tiny_inputs(tmp_path, spec), RecordingSink(), never)
    assert result.artifact_kind is ArtifactKind.MODEL
    assert result.metrics["merge_max_logit_difference"] < 1e-4


@pytest.mark.parametrize("name", ["lora", "dora", "qlora", "qlora-dora"])
def test_an_adapter_that_is_there_already_is_merged(name: str, tmp_path: Path) -> None:
    """A run without a step makes the same model, bit for bit, as one that merged at its end."""
    stored_as(tmp_path, torch.bfloat16)
    spec = replace(MERGED, method=METHODS[name], compute=ComputeType.BF16, merge=Merge(format=WeightFormat.FP32))
    whole = tiny_inputs(tmp_path, spec)
    train(whole, RecordingSink(), never)
    alone = apart(replace(whole, spec=replace(spec, merge=None)), "alone")
    adapter = train(alone, RecordingSink(), never)
    later = apart(replace(whole, spec=replace(spec, method=MergeMethod())), "later")
    sink = RecordingSink()
    result = train(replace(later, base=[*whole.base, layer(alone, adapter)]), sink, never)
    assert (result.artifact_kind, result.step, sink.steps) == (ArtifactKind.MODEL, 0, [])
    assert (later.output / "model.safetensors").read_bytes() == (whole.output / "model.safetensors").read_bytes()
    assert (later.output / "adapters" / "adapter_model.safetensors").exists()
    told = json.loads((later.output / "metadata.json").read_text())
    assert told["method"] == "merge"
    assert told["merged"]["method"] == ("qlora" if name.startswith("qlora") else "lora")
    assert told["merged"].get("base_quantization") == ("nf4" if name.startswith("qlora") else None)
    assert result.not_run == {
        "training_loss": "no step was made",
        "checkpoint_integrity": "the run saved no checkpoint",
    }
    assert {check.name for check in result.checks} == {"aim_profile", "merge_divergence", "model_output"}


def test_a_stack_of_adapters_is_merged(tmp_path: Path) -> None:
    """All adapters of a stack are in the model, each on what is below it."""
    first = tiny_inputs(tmp_path, replace(MERGED, merge=None))
    below = layer(first, train(first, RecordingSink(), never))
    spec = replace(MERGED, method=METHODS["rslora"], seed=6)
    second = replace(apart(replace(first, spec=spec), "second"), base=[*first.base, below])
    result = train(second, RecordingSink(), never)
    assert result.artifact_kind is ArtifactKind.MODEL
    assert result.metrics["merge_max_logit_difference"] < 1e-4


def fault_of(task: TrainingInputs) -> TrainingFault:
    """Returns the fault that a run ends with."""
    with pytest.raises(TrainingFault) as caught:
        train(task, RecordingSink(), never)
    return caught.value


def test_merging_alone_fails_where_it_diverges(tmp_path: Path) -> None:
    """There is nothing else to publish: the job fails with what was measured, and leaves no files."""
    made = tiny_inputs(tmp_path, replace(MERGED, merge=None))
    adapter = layer(made, train(made, RecordingSink(), never))
    spec = TrainingSpec(method=MergeMethod(), merge=Merge(format=WeightFormat.BF16, min_agreement=1.0), seed=5)
    task = apart(replace(made, spec=spec, base=[*made.base, adapter]), "merged")
    weights = load_file(adapter.folder / "adapter_model.safetensors")
    noise = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(noise, adapter.folder / "adapter_model.safetensors", metadata={"format": "pt"})
    manifest = build(adapter.folder)
    fault = fault_of(replace(task, base=[*made.base, replace(adapter, manifest=manifest, digest=manifest.digest)]))
    assert fault.reason is Reason.MERGE_DIVERGED
    assert "less than the 100.000%" in fault.message
    assert float(fault.metadata["top1_agreement"]) < 1.0
    assert not task.output.exists()


def test_merging_a_whole_model_is_refused(tmp_path: Path) -> None:
    """There is nothing to merge, and the fault says what to give."""
    fault = fault_of(tiny_inputs(tmp_path, replace(SPEC, method=MergeMethod())))
    assert (fault.reason, fault.metadata["field"]) == (Reason.INVALID_FIELD, "base")


def test_answers_are_held_against_keywords(tmp_path: Path) -> None:
    """003-22: the check of the result asks each prompt for one of its words."""
    for words, passed in (("cat",), True), (("whale",), False):
        evaluation = Evaluation(prompts=("Say cat 0.",), keywords=(words,), max_new_tokens=12)
        optimization = replace(FAST, max_steps=60)
        spec = replace(SPEC, evaluation=evaluation, optimization=optimization, method=LoraMethod(rank=8))
        task = apart(tiny_inputs(tmp_path, spec, rows=2), words[0])
        result = train(task, RecordingSink(), never)
        (check,) = (each for each in result.checks if each.name == "model_output")
        assert check.passed is passed, check.message
