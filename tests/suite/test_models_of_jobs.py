"""Models that jobs make: listed when they are there and only then, described, checked, and the base of the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.launcher import Suite
from tests.support.suite import connect, running_suite, tiny_inputs
from tests.support.tiny_bert import make_tiny_bert
from tuneforge import Client, GenerationOptions, InvalidArgument, TuneforgeError
from tuneforge.cli.app import cli
from tuneforge.model_values import ModelFacts, ModelFilter
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    Evaluation,
    LoraMethod,
    Merge,
    MergeMethod,
    Optimization,
    OverlongPolicy,
    PreferenceTask,
    RewardModelTask,
    TrainingSpec,
)

DOCUMENTS = {"config.json", "env.json", "metadata.json", "training_info.json", "aim_profile.json"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """Four running services."""
    with running_suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a tiny model, and rows."""
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def client(suite: Suite, inputs: tuple[Path, Path]) -> Iterator[Client]:
    """A client, with a configuration alone as `empty-head`, an embedding model as `bert` and rows as `animals`."""
    model, rows = inputs
    with connect(suite) as connected:
        connected.models.import_config(model / "config.json", "empty-head", seed=7)
        connected.models.update("empty-head", ModelFacts(license="mit", tags=["scratch"]))
        connected.models.update_version("empty-head/1", ModelFacts(license="mit", domain="animals"))
        connected.datasets.upload(rows, "animals")
        yield connected


def spec(base: str, overlong: OverlongPolicy = OverlongPolicy.DROP, max_tokens: int = 128) -> TrainingSpec:
    """Returns a spec of three steps that asks two prompts at its end."""
    data = DataConfig(train=DataSource(dataset="animals"), max_tokens=max_tokens, overlong=overlong)
    return TrainingSpec(
        base=BaseModel(model=base),
        method=LoraMethod(rank=2),
        data=data,
        optimization=Optimization(max_steps=3, rows_per_step=2, learning_rate=1e-2),
        checkpointing=Checkpointing(every_steps=2),
        evaluation=Evaluation(prompts=("Say cat 0.", "Say dog 1."), max_new_tokens=4),
        seed=3,
    )


def listed(client: Client) -> set[str]:
    """Returns the ids of the models that have a version."""
    return {model.name.rpartition("/")[2] for model in client.models.list() if model.latest_version}


def test_models_are_listed_when_a_job_has_finished_and_never_when_it_failed(client: Client) -> None:
    """001-24, 001-26, 001-27: a finished one's is there at once and the base of the next; a failed one's never."""
    assert listed(client) == {"empty-head"}
    first = client.jobs.create(spec("empty-head/1"), job_id="first")
    assert "first" not in listed(client)
    made = first.result().version
    assert made is not None
    assert "first" in listed(client)
    failed = client.jobs.create(spec("first/1", overlong=OverlongPolicy.REFUSE, max_tokens=8), job_id="failed")
    with pytest.raises(TuneforgeError):
        failed.result()
    assert "failed" not in listed(client)
    client.jobs.create(spec("first/1"), job_id="second").result()
    assert listed(client) == {"empty-head", "first", "second"}
    second = client.models.version("second")
    assert second.lineage.base is not None
    assert second.lineage.base.version == made.version
    first_version = client.models.version("first/1")
    assert first_version.lineage.base is not None
    assert first_version.lineage.base.version.endswith("empty-head/versions/1")
    assert (second.license, second.domain, second.task) == ("mit", "animals", "text-generation")
    found = client.models.list(ModelFilter(domain="animals", task="text-generation"), order_by="date desc")
    assert [model.name.rpartition("/")[2] for model in found] == ["second", "first", "empty-head"]


def test_a_version_has_its_documents(client: Client, tmp_path: Path) -> None:
    """001-09, 001-12, 001-28, 003-14: files beside the adapter say what it is, what made it and what it needs."""
    version = client.models.download("first/1", tmp_path)
    paths = {file.path for file in version.manifest.files}
    assert paths >= DOCUMENTS | {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    documents = {name: json.loads((tmp_path / name).read_text()) for name in DOCUMENTS}
    assert documents["metadata.json"]["base_model_id"].endswith("models/empty-head/versions/1")
    assert {"tags", "license", "domain"} <= set(documents["metadata.json"])
    environment = version.lineage.environment
    assert documents["metadata.json"]["base_initial_weights_sha256"] == environment["initial_weights"]
    assert documents["training_info.json"]["method"] == "lora"
    assert documents["training_info.json"]["results"]["train_loss"] == version.metrics["loss"]
    assert documents["env.json"]["packages"]["torch"] == environment["torch"]
    assert documents["config.json"]["architectures"] == ["LlamaForCausalLM"]
    profile = client.models.profile("first/1")
    stored = documents["aim_profile.json"]
    assert (stored["memory_gb"], stored["base_model_id"]) == (profile.memory_gb, "empty-head")
    results = json.loads(profile.training_info_json)["results"]
    assert {"train_loss", "train_runtime", "train_samples_per_second", "model_path"} <= set(results)


def test_a_run_has_checked_its_result(client: Client, suite: Suite) -> None:
    """003-20: all four checks ran; the command line prints them and ends with 0 only when all passed."""
    report = next(client.models.validations("first/1"))
    assert {check.name for check in report.checks} == {
        "training_loss", "model_output", "checkpoint_integrity", "aim_profile",
    }  # fmt: skip
    assert report.source == "trainer"
    answered = CliRunner().invoke(cli, ["--registry", suite.address("registry"), "models", "validation", "first/1"])
    assert answered.exit_code == (0 if report.passed else 1), answered.output
    assert f"/{len(report.checks)} checks passed" in answered.output
    assert "PASS  training_loss" in answered.output
    none = CliRunner().invoke(cli, ["--registry", suite.address("registry"), "models", "validation", "empty-head/1"])
    assert none.exit_code == 1


def test_a_merged_model_is_published_with_what_it_was_made_of(client: Client) -> None:
    """001-12: whole, with the adapter beside it; profile and card say that it is merged, and how far from it."""
    client.jobs.create(replace(spec("empty-head/1"), merge=Merge()), job_id="whole").result()
    version = client.models.version("whole/1")
    assert version.kind == "MODEL"
    paths = {file.path for file in version.manifest.files}
    assert paths >= DOCUMENTS | {"model.safetensors", "tokenizer.json", "adapters/adapter_model.safetensors"}
    assert version.metrics["merge_top1_agreement"] == 1.0
    profile = json.loads(client.models.profile("whole/1").profile_json)
    assert profile["merge_info"]["method"] == "lora"
    assert profile["merge_info"]["divergence"]["top1_agreement"] == 1.0
    assert "| Merged | of a lora adapter" in client.models.card("whole/1")
    report = next(client.models.validations("whole/1"))
    assert "merge_divergence" in {check.name for check in report.checks}


def test_an_adapter_is_merged_by_command(client: Client, suite: Suite) -> None:
    """`models merge` makes the same weights from the version that is there; a whole model has nothing to merge."""
    run = partial(CliRunner().invoke, cli)
    services = ["--registry", suite.address("registry"), "--scheduler", suite.address("scheduler")]
    asked = run([*services, "models", "merge", "first/1", "--job-id", "merging", "--watch"])
    assert asked.exit_code == 0, asked.output
    version = client.models.version("first-merged/1")
    assert version.lineage.base is not None
    assert version.lineage.base.version.endswith("models/first/versions/1")
    weights = {file.path: file.sha256 for file in version.manifest.files}
    whole = {file.path: file.sha256 for file in client.models.version("whole/1").manifest.files}
    assert weights["model.safetensors"] == whole["model.safetensors"]
    again = run([*services, "models", "merge", "first-merged/1"])
    assert again.exit_code == 2
    assert "nothing to merge" in again.output
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.create(replace(spec("first-merged/1"), method=MergeMethod()), job_id="merging-again")
    assert [field.field for field in caught.value.fields] == ["spec.base.model"]


def test_an_adapter_of_pairs_is_merged_by_command(client: Client, suite: Suite, tmp_path: Path) -> None:
    """Without other rows the two are compared on the pairs that it learned from; a reward model is refused."""
    path = tmp_path / "pairs.jsonl"
    pair = {"prompt": "Say cat 0.", "chosen": "cat", "rejected": "dog"}
    path.write_text("".join(json.dumps({**pair, "prompt": f"Say cat {each}."}) + "\n" for each in range(4)))
    client.datasets.upload(path, "pairs")
    pairs = DataConfig(train=DataSource(dataset="pairs"), max_tokens=128)
    asked = replace(spec("empty-head/1"), data=pairs, evaluation=Evaluation())
    client.jobs.create(replace(asked, task=PreferenceTask()), job_id="prefers").result()
    client.jobs.create(replace(asked, task=RewardModelTask()), job_id="judges").result()
    merge = ["--registry", suite.address("registry"), "--scheduler", suite.address("scheduler"), "models", "merge"]
    made = CliRunner().invoke(cli, [*merge, "prefers/1", "--watch"])
    assert made.exit_code == 0, made.output
    assert client.models.version("prefers-merged/1").kind == "MODEL"
    refused = CliRunner().invoke(cli, [*merge, "judges/1"])
    assert refused.exit_code == 2
    assert "reward model" in refused.output


def test_equal_runs_have_equal_digests(client: Client) -> None:
    """What is hashed beside the weights repeats with the run: equal specs give equal digests."""
    again = client.jobs.create(spec("empty-head/1"), job_id="again").result().version
    assert again is not None
    assert again.digest == client.models.version("first/1").manifest.digest
    assert again.version != client.models.version("first/1").name


def test_a_downloaded_adapter_comes_in_again_on_its_base(client: Client, tmp_path: Path) -> None:
    """What a job made can be brought in elsewhere: the base is named, the digest and the shapes are held against it."""
    client.models.download("first/1", tmp_path)
    brought = client.models.import_adapter(tmp_path, "brought", base="empty-head/1")
    assert brought.lineage.base is not None
    assert brought.lineage.base.version.endswith("empty-head/versions/1")
    card = client.models.card("brought")
    assert "It is of use on its base only" in card


def test_an_embedding_model_is_no_base(client: Client, tmp_path: Path) -> None:
    """It is kept, and a job on it is refused with what it is and what to do."""
    client.models.import_folder(make_tiny_bert(tmp_path / "bert"), "bert")
    with pytest.raises(InvalidArgument) as caught:
        client.jobs.create(spec("bert/1"), job_id="on-bert")
    assert any("feature-extraction" in field.description for field in caught.value.fields)


def test_a_model_of_drawn_weights_is_served(client: Client) -> None:
    """The engine draws the same base as the trainer, and takes the adapter that was trained on it."""
    deployment = client.deployments.create("drawn", model="first/1")
    (answer,) = client.deployments.generate(
        deployment.name,
        messages=[{"role": "user", "content": "Say cat 0."}],
        options=GenerationOptions(max_new_tokens=4),
    )
    assert answer.served.version.version.endswith("models/first/versions/1")
    client.deployments.delete(deployment.name)
