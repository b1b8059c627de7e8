"""The public API as a user's program, for the type checker only: it must be accepted by mypy --strict, never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import tuneforge
from tuneforge import (
    ABSENT,
    Alias,
    BaseModel,
    Budget,
    ChatMessage,
    Client,
    Completion,
    CompletionPiece,
    DataConfig,
    Dataset,
    DatasetVersion,
    DataSource,
    Deployment,
    Event,
    GenerationOptions,
    ImportOptions,
    Job,
    JobFailed,
    JobHandle,
    JobState,
    LoraMethod,
    ModelVersion,
    Node,
    Queue,
    QueueChange,
    RecipeInfo,
    ResolvedRecipe,
    Source,
    StepMetrics,
    TrainingSpec,
    TuneforgeError,
    WatchOptions,
)


def datasets(client: Client) -> None:
    """Data sets."""
    assert_type(client.datasets.upload("rows.jsonl", "rows"), DatasetVersion)
    assert_type(client.datasets.upload([Path("a.jsonl"), "b.jsonl"], dataset="rows"), DatasetVersion)
    options = ImportOptions(source_split="train", include=("data/*.parquet",))
    imported = client.datasets.import_from("hf://owner/rows", "rows", options=options)
    assert_type(imported, DatasetVersion)
    assert_type(imported.source, Source | None)
    assert_type(client.datasets.list(), Iterator[Dataset])


def models(client: Client) -> None:
    """Models and aliases."""
    version = client.models.import_folder("weights", model="base")
    assert_type(version, ModelVersion)
    assert_type(version.metrics.get("loss"), float | None)
    alias = client.aliases.set("base", "production", 1, expected=ABSENT, reason="first")
    assert_type(alias, Alias)
    client.aliases.set("base", "production", "base/2", expected=alias)
    assert_type(client.models.download("base@production", Path("out")), ModelVersion)


def jobs(client: Client) -> None:
    """Jobs."""
    spec = TrainingSpec(
        base=BaseModel(model="base@production"),
        method=LoraMethod(rank=8),
        data=DataConfig(train=DataSource(dataset="rows")),
    )
    job = client.jobs.create(spec, job_id="one", labels={"team": "blue"})
    assert_type(job, JobHandle)
    client.jobs.create("spec.json")
    client.jobs.create({"base": {"model": "base/1"}})
    assert_type(client.jobs.validate(spec), Job)
    with job.watch(cursor="", options=WatchOptions(max_batch=10)) as stream:
        for event in stream:
            assert_type(event, Event)
            if isinstance(event.payload, StepMetrics):
                assert_type(event.payload.loss, float)
        assert_type(stream.cursor, str)
    try:
        assert_type(job.result(timeout_s=1.0), Job)
    except JobFailed as error:
        assert_type(error.cure, str)
    assert_type(job.state, JobState)
    assert_type(client.jobs.list(states=[JobState.RUNNING]), Iterator[Job])


def deployments(client: Client) -> None:
    """Deployments and completions."""
    assert_type(client.deployments.create("d", "base/1"), Deployment)
    assert_type(client.deployments.generate("d", "Once upon a time"), tuple[Completion, ...])
    pieces = client.deployments.generate("d", ["a", "b"], options=GenerationOptions(seed=1), stream=True)
    assert_type(pieces, Iterator[CompletionPiece])
    client.deployments.generate("d", messages=[ChatMessage(role="user", content="hello")])
    client.deployments.generate("d", messages=[{"role": "user", "content": "hello"}])


def the_rest() -> None:
    """Nodes, closing, errors, version."""
    with tuneforge.Client(registry="127.0.0.1:7101", project="team", token="t", ca="ca.pem") as client:
        assert_type(client.nodes.list(), Iterator[Node])
        assert_type(client.queues.list(), Iterator[Queue])
        assert_type(client.queues.update(QueueChange(weight=2.0, budget=Budget(device_seconds=60.0))), Queue)
    assert_type(tuneforge.__version__, str)
    assert_type(TuneforgeError("NOT_FOUND", "x").fields, tuple[tuneforge.FieldViolation, ...])


def recipes(client: Client) -> None:
    """Recipes."""
    assert_type(client.recipes.list(), Iterator[RecipeInfo])
    assert_type(client.recipes.resolve("MNIST", {"epochs": 2}), ResolvedRecipe)
    assert_type(client.models.import_from("hf://owner/name", "name"), ModelVersion)
