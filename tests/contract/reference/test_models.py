"""Reference cases about model files, checks, profiles and what counts as a model, at the registry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.trainer.engine.result_checks import check_checkpoint
from tests.support.event_loop import on_loop
from tests.support.registry import PROJECT, fields_of, folder_files, refused, running_registry
from tests.support.tiny_bert import make_tiny_bert
from tests.support.tiny_model import make_tiny_model
from tuneforge.checks import Check, check_model_output, check_profile, check_training_loss, report_json, report_text
from tuneforge.errors import Reason
from tuneforge.specs.profile import (
    BYTES_PER_PARAMETER,
    ProfileFacts,
    partition_gb,
    profile,
    rule_memory_gb,
    size_in_id,
    size_text,
)
from tuneforge.specs.profile_documents import training_info
from tuneforge.specs.spec import BaseModel, LoraMethod, Optimization, QloraMethod, TrainingSpec
from tuneforge.specs.validation import validate
from tuneforge.v1 import models_pb2 as pb
from tuneforge.v1 import validations_pb2

EXAMPLE = {
    "model_id": "Qwen/Qwen2.5-7B-Instruct-finetuned",
    "base_model_id": "Qwen/Qwen2.5-7B-Instruct",
    "fine_tuning_method": "lora",
    "precision": "fp16",
    "memory_gb": 15.0,
    "recommended_partition_gb": 18.75,
    "parameters": "7B",
}


def example_facts(method: str = "lora", precision: str = "fp16", base: str = EXAMPLE["base_model_id"]) -> ProfileFacts:  # type: ignore[assignment]
    """Returns what the example's profile is reckoned from."""
    return ProfileFacts(
        model_id=f"{base}-finetuned", base_model_id=base, method=method, precision=precision, parameter_count=7 * 10**9
    )


@pytest.mark.parametrize("case", ["001-19"])
def test_a_base_must_be_named(case: str) -> None:
    """A spec without its base is refused with the field."""
    assert case
    assert "base" in {violation.field for violation in validate(TrainingSpec(base=BaseModel(), method=LoraMethod()))}


@pytest.mark.parametrize(
    ("missing", "fields"),
    [
        (("model.safetensors",), ["model.safetensors"]),
        (("config.json",), ["config.json"]),
        (("config.json", "model.safetensors"), ["config.json", "model.safetensors"]),
    ],
    ids=["001-20-weights", "001-20-config", "001-20-both"],
)
@on_loop
async def test_each_missing_file_is_named(tmp_path: Path, missing: tuple[str, ...], fields: list[str]) -> None:
    """A model without weights or configuration never comes in, so it can never be chosen as a base."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    for name in missing:
        del files[name]
    async with running_registry(tmp_path / "data") as registry:
        model, manifest = await registry.model(), await registry.put_files(files)
        request = pb.CreateModelVersionRequest(parent=model, manifest=manifest)
        error = await refused(registry.stub.CreateModelVersion(request), Reason.INVALID_MODEL)
        assert sorted(fields_of(error)) == fields


@pytest.mark.parametrize(
    "values",
    [{"architectures": None}, {"hidden_size": None}, {"num_hidden_layers": None}],
    ids=["001-21-architecture", "001-21-width", "001-21-layers"],
)
@on_loop
async def test_a_configuration_must_be_enough_to_rebuild_the_model(tmp_path: Path, values: dict[str, object]) -> None:
    """What the shapes depend on must be there."""
    files = folder_files(make_tiny_model(tmp_path / "tiny"))
    files["config.json"] = json.dumps(json.loads(files["config.json"]) | values).encode()
    async with running_registry(tmp_path / "data") as registry:
        model, manifest = await registry.model(), await registry.put_files(files)
        request = pb.CreateModelVersionRequest(parent=model, manifest=manifest)
        error = await refused(registry.stub.CreateModelVersion(request), Reason.INVALID_MODEL)
        assert set(fields_of(error)) == {"config.json"}
        assert error.metadata["codes"] == "CONFIG_NOT_ALLOWED"


@pytest.mark.parametrize("make", [make_tiny_model, make_tiny_bert], ids=["001-11-llama", "001-11-bert"])
@on_loop
async def test_files_of_a_transformer_model(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Weights as safetensors, configuration, tokenizer as the model has it."""
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model(), make(tmp_path / "model"))
        paths = {file.path for file in version.manifest.files}
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= paths
        assert version.framework == "transformers"


@pytest.mark.parametrize("case", ["002-01"])
@on_loop
async def test_an_empty_model_is_a_location(tmp_path: Path, case: str) -> None:
    """A model without anything is made, has no files, and is ready to get versions."""
    assert case
    folder = make_tiny_model(tmp_path / "tiny")
    async with running_registry(tmp_path / "data") as registry:
        made = await registry.stub.CreateModel(pb.CreateModelRequest(parent=PROJECT, model_id="place"))
        assert (made.latest_version, made.size_bytes, made.task) == ("", 0, "")
        listed = (await registry.stub.ListModels(pb.ListModelsRequest(parent=PROJECT))).models
        assert [model.name for model in listed] == [made.name]
        assert (await registry.imported(made.name, folder)).name.endswith("/versions/1")


@pytest.mark.parametrize("case", ["002-10"])
@on_loop
async def test_a_new_base_needs_no_weights(tmp_path: Path, case: str) -> None:
    """A configuration and a seed make a base that training can begin from."""
    assert case
    folder = make_tiny_model(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    (folder / "initialization.json").write_text('{"seed": 1}')
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model("new-base"), folder)
        assert version.initialization.seed == 1
        assert not version.lineage.base.version
        assert version.architecture.parameters > 0


@pytest.mark.parametrize("method", ["lora", "qlora"], ids=["003-14-lora", "003-14-qlora"])
def test_training_info_has_its_fields(method: str) -> None:
    """The method is a word, and the results say where the model lies and how long it took."""
    lora = LoraMethod(rank=16, alpha=32.0)
    spec = TrainingSpec(
        method=lora if method == "lora" else QloraMethod(lora=lora),
        optimization=Optimization(learning_rate=2e-4, rows_per_step=4, epochs=3.0),
    )
    info = training_info(spec, "base", {"loss": 1.25, "train_seconds": 9.0, "train_samples_per_second": 3.0})
    assert {"model_id", "output_dir", "training_config", "method", "results"} <= set(info)
    assert {"learning_rate", "batch_size", "epochs", "max_seq_length"} <= set(info["training_config"])
    assert info["method"] == info["results"]["method"] == method
    assert {"train_loss", "train_runtime", "train_samples_per_second", "model_path"} <= set(info["results"])
    assert ("quantization" in info["results"]) == (method == "qlora")


CHECKS = (
    Check(name="training_loss", passed=True, score=1.25, threshold=10.0, message="Good."),
    Check(name="aim_profile", passed=False, message="The profile lacks memory_gb."),
)


@pytest.mark.parametrize("case", ["003-19"])
def test_a_report_is_text_and_json(case: str) -> None:
    """A line of PASS or FAIL, message and score for each check, and the count at the end; the same for programs."""
    assert case
    text = report_text("m/1", CHECKS, {"model_output": "no prompts"})
    assert "PASS  training_loss\n      Good.\n      score 1.2500 (threshold 10)\n" in text
    assert "FAIL  aim_profile\n" in text
    assert "not run: no prompts" in text
    assert text.endswith("\nSummary: 1/2 checks passed\n")
    content = json.loads(report_json("m/1", CHECKS, {}))
    assert (content["passed"], content["checks_passed"], content["checks_total"]) == (False, 1, 2)
    assert content["checks"][0]["score"] == 1.25


@pytest.mark.parametrize("case", ["003-20"])
@on_loop
async def test_each_check_is_kept_with_its_fields(tmp_path: Path, case: str) -> None:
    """check_name, passed, score, message, details: as they were sent."""
    assert case
    check = validations_pb2.CheckResult(
        check_name="model_output", passed=True, score=1.0, threshold=0.8, message="All.", details={"prompts": "2"}
    )
    async with running_registry(tmp_path / "data") as registry:
        version = await registry.imported(await registry.model(), make_tiny_model(tmp_path / "tiny"))
        report = validations_pb2.ValidationReport(checks=[check])
        request = validations_pb2.CreateValidationReportRequest(parent=version.name, report=report)
        assert list((await registry.stub.CreateValidationReport(request)).checks) == [check]


@pytest.mark.parametrize(
    ("loss", "passed"),
    [(1.25, True), (0.0, True), (10.0, True), (10.5, False), (-0.1, False), (float("nan"), False), (None, False)],
    ids=lambda value: f"003-21-{value}",
)
def test_training_loss(loss: float | None, passed: bool) -> None:
    """Both ends belong to the range; the score is the loss."""
    check = check_training_loss(loss)
    assert check.passed is passed
    assert check.score == loss or not passed


@pytest.mark.parametrize(
    ("answered", "passed"), [(10, True), (8, True), (7, False)], ids=lambda value: f"003-22-{value}"
)
def test_model_output(answered: int, passed: bool) -> None:
    """Of ten prompts eight must give an answer, or one with a keyword where there are keywords."""
    check = check_model_output(["yes"] * answered + [" "] * (10 - answered))
    assert (check.passed, check.score) == (passed, answered / 10)
    worded = check_model_output(["The CAT sat."] * answered + ["dog"] * (10 - answered), [["cat", "hen"]] * 10)
    assert (worded.passed, worded.score) == (passed, answered / 10)


def cut(path: Path) -> None:
    """Cuts a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Changes the last byte of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "harm", "passed"),
    [
        ("state.json", None, True),
        ("state.json", Path.unlink, False),
        ("manifest.json", Path.unlink, False),
        ("state.json", cut, False),
        ("weights.safetensors", flip, False),
    ],
    ids=["003-23-whole", "003-23-state-missing", "003-23-info-missing", "003-23-cut", "003-23-altered"],
)
def test_checkpoint_integrity(tmp_path: Path, file: str, harm: Callable[[Path], None] | None, passed: bool) -> None:
    """Every byte counts: `manifest.json` and `state.json` are what others call checkpoint_info and training_state."""
    import torch

    from services.trainer.engine.checkpoints import Checkpoint, save

    saved = save(
        tmp_path,
        Checkpoint(step=2, attempt=1, facts={"progress": {}}, tensors={"weights": {"x": torch.ones(3)}}),
        keep_last=1,
    )
    if harm is not None:
        harm(saved.folder / file)
    check = check_checkpoint(tmp_path)
    assert check is not None
    assert check.passed is passed


@pytest.mark.parametrize(
    ("document", "passed", "word"),
    [
        (EXAMPLE, True, ""),
        (EXAMPLE | {"memory_gb": 0}, False, "above 0"),
        ({key: value for key, value in EXAMPLE.items() if key != "base_model_id"}, False, "base_model_id"),
        ("{not json", False, "not JSON"),
    ],
    ids=["003-24-example", "003-24-zero", "003-24-missing", "003-24-not-json"],
)
def test_profile_format(document: str | dict[str, object], passed: bool, word: str) -> None:
    """Four fields must be there, and the memory above nothing."""
    check = check_profile(document if isinstance(document, str) else json.dumps(document))
    assert check.passed is passed
    assert word in check.message


@pytest.mark.parametrize("case", ["003-26"])
def test_the_example_profile_has_its_keys(case: str) -> None:
    """All seven keys; the partition is a quarter larger; bfloat16 is written bf16."""
    assert case
    found = json.loads(profile(example_facts()).to_json())
    assert set(EXAMPLE) <= set(found)
    assert found["model_id"] == EXAMPLE["model_id"]
    assert found["parameters"] == "7B"
    assert found["recommended_partition_gb"] == pytest.approx(found["memory_gb"] * 1.25, abs=0.01)
    assert json.loads(profile(example_facts(precision="bf16")).to_json())["precision"] == "bf16"
    assert check_profile(profile(example_facts()).to_json()).passed
    assert partition_gb(15.0) == 18.75


@pytest.mark.parametrize(
    ("method", "memory", "partition"),
    [("lora", 19.11, 23.89), ("qlora", 5.46, 6.83), ("full", 18.2, 22.75)],
    ids=["003-27-lora", "003-28-qlora", "003-29-full"],
)
def test_the_memory_rule(method: str, memory: float, partition: float) -> None:
    """7 billion weights in 16 bits by each method, and the rule stands beside the number."""
    assert rule_memory_gb(7.0, 2.0, method) == pytest.approx(memory, abs=0.01)
    assert partition_gb(memory) == pytest.approx(partition, abs=0.01)
    found = profile(example_facts(method=method))
    assert found.memory_gb == pytest.approx(memory, abs=0.01)
    assert "P = 7, m = 2" in found.formula


@pytest.mark.parametrize(
    ("precision", "size"),
    [("fp32", 4.0), ("fp16", 2.0), ("bf16", 2.0), ("fp8", 1.0), ("int8", 1.0), ("int4", 0.5)],
    ids=lambda value: f"003-30-{value}" if isinstance(value, str) else "",
)
def test_bytes_of_one_weight(precision: str, size: float) -> None:
    """Each precision has its own."""
    assert BYTES_PER_PARAMETER[precision] == size


@pytest.mark.parametrize("case", ["003-30"])
def test_sizes_come_from_the_id_or_the_weights(case: str) -> None:
    """The number before a capital B; where the id has none, the weights that are counted; without both, no guess."""
    assert case
    assert size_in_id("Qwen/Qwen2.5-7B-Instruct") == ("7B", 7.0)
    assert size_in_id("mistral/Mixtral-8x7B") == ("8x7B", 56.0)
    assert size_in_id("owner/model") is None
    assert profile(example_facts(base="owner/model")).parameters == size_text(7 * 10**9) == "7B"
    nameless = ProfileFacts(
        model_id="a", base_model_id="owner/model", method="lora", precision="fp16", parameter_count=0
    )
    with pytest.raises(ValueError, match="names no size"):
        profile(nameless)
