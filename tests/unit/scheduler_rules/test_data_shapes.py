"""Rows that a job could not learn, and sides without rows, are refused when the job is created."""

import asyncio

import pytest

from services.scheduler.resolving import Problem, resolve_data
from services.scheduler.wire.inputs import KEPT_BYTES_MAX, DatasetFacts, ModelFacts, dataset_facts
from tuneforge.specs.spec import ContinuedPretrainingTask, DataSource, PreferenceTask, RewardModelTask, Task
from tuneforge.v1 import datasets_pb2, trainer_pb2

NAME = "projects/default/datasets/rows/versions/1"


def version(shape: str, *, train: int = 8, validation: int | None = None, by_files: bool = False) -> DatasetFacts:
    """Returns the facts of a version as the registry answers with it; undivided without validation rows."""
    message = datasets_pb2.DatasetVersion(name=NAME, rows=8, shape=datasets_pb2.RowShape.Value(f"ROW_SHAPE_{shape}"))
    message.manifest.digest = "0" * 64
    if validation is not None:
        message.split.by_files = by_files
        message.split.validation_ratio = 0.0 if by_files else 0.25
        message.split.seed = 7
        message.statistics.train_rows, message.statistics.validation_rows = train, validation
    return dataset_facts(message)


class Registry:
    """Answers with one version."""

    def __init__(self, facts: DatasetFacts) -> None:
        self._facts = facts

    async def dataset(self, name: str) -> DatasetFacts:
        """Returns the version whatever is asked for."""
        assert name == NAME
        return self._facts

    async def model(self, name: str) -> ModelFacts:
        """Is not asked."""
        raise AssertionError(name)


def resolved(facts: DatasetFacts, *, task: Task | None = None, is_validation: bool = False) -> DatasetFacts | Problem:
    """Resolves the version as a job's data."""
    source, field = DataSource(dataset=NAME), "spec.data.train.dataset"
    return asyncio.run(resolve_data(Registry(facts), source, field, task=task, is_validation=is_validation))


@pytest.mark.parametrize("shape", ["MESSAGES", "PROMPT_COMPLETION", "INSTRUCTION", "SHAREGPT", "TEXT"])
def test_what_can_be_learned_is_taken(shape: str) -> None:
    """All shapes that the engine learns."""
    assert isinstance(resolved(version(shape)), DatasetFacts)


@pytest.mark.parametrize("shape", ["PREFERENCE", "TEXT_LABEL", "IMAGE_LABEL", "CLICK_SESSION"])
def test_other_shapes_are_refused_by_name(shape: str) -> None:
    """The answer says which shape it is and which are learned."""
    found = resolved(version(shape))
    assert isinstance(found, Problem)
    assert shape in found.violation.description
    assert "PROMPT_COMPLETION" in found.violation.description


@pytest.mark.parametrize(
    ("task", "taken", "refused"),
    [
        (ContinuedPretrainingTask(), "TEXT", "MESSAGES"),
        (PreferenceTask(), "PREFERENCE", "PROMPT_COMPLETION"),
        (RewardModelTask(), "PREFERENCE", "TEXT"),
    ],
)
def test_each_task_has_its_shapes(task: Task, taken: str, refused: str) -> None:
    """Rows of another shape are refused before a node sees them; the answer names the shape that is learned."""
    assert isinstance(resolved(version(taken), task=task), DatasetFacts)
    found = resolved(version(refused), task=task)
    assert isinstance(found, Problem)
    assert f"give one of {taken}" in found.violation.description


@pytest.mark.parametrize("by_files", [True, False])
def test_the_split_goes_to_the_trainer(by_files: bool) -> None:
    """What a node needs to find the side of a row is in its order; a version that is not divided has none."""
    facts = resolved(version("TEXT", validation=2, by_files=by_files), is_validation=True)
    assert isinstance(facts, DatasetFacts)
    split = trainer_pb2.DataInput.FromString(facts.data).split
    assert (split.by_files, split.seed) == (by_files, 7)
    assert not trainer_pb2.DataInput.FromString(version("TEXT").data).HasField("split")


def test_a_side_without_rows_is_refused() -> None:
    """A version that is divided into train and test has nothing to validate on."""
    facts = version("TEXT", validation=0, by_files=True)
    assert isinstance(resolved(facts), DatasetFacts)
    found = resolved(facts, is_validation=True)
    assert isinstance(found, Problem)
    assert "no rows for validation" in found.violation.description
    empty = resolved(version("TEXT", train=0, validation=3))
    assert isinstance(empty, Problem)


def test_a_version_of_very_many_files_is_not_kept() -> None:
    """A usual one is the same object the next time; what a large one has is the same, and it is not held in memory."""
    message = datasets_pb2.DatasetVersion(name=NAME, rows=8, shape=datasets_pb2.ROW_SHAPE_TEXT)
    message.manifest.digest = "0" * 64
    assert dataset_facts(message) is dataset_facts(message)
    while message.ByteSize() <= KEPT_BYTES_MAX:
        message.manifest.files.add(path=f"part-{len(message.manifest.files)}.jsonl", sha256="1" * 64, size_bytes=1)
    first, second = dataset_facts(message), dataset_facts(message)
    assert first is not second
    assert first == second
    assert trainer_pb2.DataInput.FromString(first.data).manifest == message.manifest
