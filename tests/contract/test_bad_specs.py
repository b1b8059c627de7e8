"""Bad input that touches a spec, row by row of the table of bad inputs: each is refused with all its fields, by name.

Rows about files of a data set are in `tests/unit/data/test_bad_inputs.py`, those about a damaged checkpoint in
`tests/unit/trainer_engine/test_checkpoints.py`, a resume with another spec in `tests/suite/test_engine_resume.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.support import fake_scheduler
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_scheduler import FakeScheduler
from tests.support.scheduling import staged, tiny_spec
from tuneforge import Client, InvalidArgument
from tuneforge._sweep_input import read_plan
from tuneforge.errors import from_rpc_error
from tuneforge.v1 import scheduler_pb2, spec_pb2


def changed(path: str, value: object) -> spec_pb2.TrainingSpec:
    """Returns the good spec with one field set."""
    spec = tiny_spec()
    *parents, last = path.split(".")
    message: Any = spec
    for parent in parents:
        message = getattr(message, parent)
    if isinstance(value, list):
        getattr(message, last).extend(value)
    else:
        setattr(message, last, value)
    return spec


ON_THE_WIRE: tuple[tuple[str, str, object], ...] = (
    ("B1", "optimization.epochs", 0.0),
    ("B1", "optimization.epochs", -1.0),
    ("B2", "optimization.epochs", 1e9),
    ("B3", "optimization.epochs", math.nan),
    ("B3", "optimization.learning_rate", math.nan),
    ("B3", "optimization.learning_rate", math.inf),
    ("B3", "optimization.learning_rate", -math.inf),
    ("B3", "guards.loss_explosion_factor", math.nan),
    ("B5", "optimization.learning_rate", -1e-4),
    ("B5", "optimization.learning_rate", 1e6),
    ("B6", "optimization.rows_per_step", 2**31),
    ("B6", "optimization.rows_per_micro_batch", 2**32 - 1),
    ("B7", "optimization.max_steps", 2**64 - 1),
    ("B8", "lora.rank", 4096),
    ("B8", "lora.alpha", math.nan),
    ("B8", "lora.dropout", 1.0),
    ("B8", "lora.target_modules", ["no_proj"]),
    ("B9", "optimization.warmup_ratio", 1.0),
    ("B9", "evaluation.patience", 1),
    ("B10", "data.max_tokens", 1),
    ("B10", "data.max_tokens", 513),
    ("B12", "optimization.optimizer", 9999),
    ("B12", "optimization.schedule", 9999),
    ("B12", "precision.compute", 9999),
    ("B12", "data.overlong", 9999),
    ("B12", "qlora.quantization", 9999),
    ("B12", "output.merge.format", 9999),
    ("B95", "resources.nodes", 2**31),
    ("B95", "resources.memory_bytes", 2**64 - 1),
    ("B95", "resources.cpu_millis", 2**64 - 1),
)
FLOATS = (math.nan, math.inf, -math.inf, -1.0, 1e308, 5e-324)
EXTREMES: Mapping[int, tuple[object, ...]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
    FieldDescriptor.CPPTYPE_FLOAT: FLOATS,
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), -1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), -1, 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (2**32 - 1,),
    FieldDescriptor.CPPTYPE_UINT64: (2**63, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-1, 9999),
}


def numbers_of(message: Descriptor) -> Iterator[tuple[str, int]]:
    """Yields the path and the kind of each number of a message and of all within it."""
    for field in message.fields:
        inner = field.message_type
        if inner is not None and not inner.GetOptions().map_entry and not field.is_repeated:
            yield from ((f"{field.name}.{path}", kind) for path, kind in numbers_of(inner))
        elif inner is None and not field.is_repeated and field.cpp_type in EXTREMES:
            yield field.name, field.cpp_type


@on_loop
async def test_no_number_breaks_the_service(tmp_path: Path) -> None:
    """Every number of a spec, as large, as small and as little of a number as it can be: taken, or refused by name."""
    async with staged(tmp_path) as stage:
        tried = 0
        for path, kind in numbers_of(spec_pb2.TrainingSpec.DESCRIPTOR):
            for value in EXTREMES[kind]:
                tried += 1
                try:
                    await stage.create(f"j{tried}", spec=changed(path, value))
                except grpc.aio.AioRpcError as error:
                    found = from_rpc_error(error)
                    assert found.reason == "INVALID_FIELD", (path, value, found)
                    told = [each.field.removeprefix("spec.") for each in found.fields]
                    # A time is one field to whoever reads the answer; pairs are no rows of the stage's data set.
                    assert any(path.startswith(each) for each in told) or told == ["data.train.dataset"], (path, told)
        assert tried > 100
        assert (await stage.create("last")).name


@on_loop
async def test_every_bad_field_is_named(tmp_path: Path) -> None:
    """INVALID_ARGUMENT, INVALID_FIELD, and the field with its value; the service answers the next call all the same."""
    async with staged(tmp_path) as stage:
        for row, path, value in ON_THE_WIRE:
            error = await refusal(stage.create(row.lower(), spec=changed(path, value)), "INVALID_ARGUMENT")
            assert error.reason == "INVALID_FIELD", row
            assert any(each.field.startswith(f"spec.{path}") for each in error.fields), (row, path, error.fields)
        assert (await stage.create()).name


@on_loop
async def test_missing_parts_are_named(tmp_path: Path) -> None:
    """B13: an empty spec lacks its base, task, method and rows, all named at once."""
    async with staged(tmp_path) as stage:
        error = await refusal(stage.create(spec=spec_pb2.TrainingSpec(seed=1)), "INVALID_ARGUMENT")
        fields = {each.field for each in error.fields}
        assert {"spec.base", "spec.task", "spec.method", "spec.data.train"} <= fields


@on_loop
async def test_labels_have_limits(tmp_path: Path) -> None:
    """B19: too many labels, a long one, and control characters in one are refused by name."""
    async with staged(tmp_path) as stage:
        cases: tuple[Mapping[str, str], ...] = (
            {f"key-{number}": "" for number in range(10_000)},
            {"k" * 64: ""},
            {"key\n": "value"},
            {"key": "\x1b[31m"},
        )
        for labels in cases:
            request = scheduler_pb2.CreateJobRequest(parent="projects/p", spec=tiny_spec(), labels=labels)
            error = await refusal(stage.stub.CreateJob(request), "INVALID_ARGUMENT")
            assert all(each.field.startswith("labels") for each in error.fields)


@pytest.fixture
def client() -> Iterator[Client]:
    """A client whose scheduler would take anything: what is refused is refused before it is sent."""
    fake = FakeScheduler()
    with fake_scheduler.serve(fake) as address, Client(scheduler=address) as found:
        yield found
    assert not fake.requests


GOOD = '{"base": {"model": "tiny/1"}, "data": {"train": {"dataset": "rows"}}, "supervised": {}, "lora": {}, %s}'


@pytest.mark.parametrize(
    ("row", "more", "words"),
    [
        ("B4", '"optimization": {"learning_rate": 1e309}', "learning_rate"),
        ("B7", '"optimization": {"max_steps": "9223372036854775808000"}', "max_steps"),
        ("B7", f'"seed": {"9" * 400}', "seed"),
        ("B11", '"optimization": {"learning_rat": 1}', "learning_rate"),
        ("B12", '"optimization": {"optimizer": "adamx"}', "optimizer"),
        ("B16", '"seed": -1', "seed"),
        ("B16", f'"seed": {2**64}', "seed"),
        ("B14", '"seed": 1,', "is not JSON"),
        ("B14", '"seed": 1 // the first', "is not JSON"),
        ("B14", '"seed": 1, "seed": 2', "has the key 'seed' twice"),
        ("B14", '"lora": {"rank": 4, "rank": 8}', "has the key 'rank' twice"),
        ("B14", f'"guards": {"[" * 100_000}{"]" * 100_000}', "too many objects or lists within each other"),
        ("B7", f'"seed": {"9" * 5000}', "thousands of digits"),
        ("B17", '"precision": {"compute": "fp8"}', "auto, bf16, fp32, fp16"),
        ("B18", '"checkpointing": {"every_steps": -1}', "every_steps"),
        ("B20", '"env": {"LD_PRELOAD": "x"}', "env"),
        ("B21", '"command": "sh -c $(id)"', "command"),
        ("B21", '"image": "x:latest"', "image"),
        ("B21", '"resources": {"hostNetwork": true}', "hostNetwork"),
    ],
)
def test_bad_json_is_refused_before_it_is_sent(client: Client, tmp_path: Path, row: str, more: str, words: str) -> None:
    """Numbers that no field carries, unknown names (with the nearest one) and malformed JSON (with the place).

    Of what runs beside a job (its environment, command, image) a spec says nothing: there are no such fields.
    """
    path = tmp_path / f"{row}.json"
    path.write_text(GOOD % more)
    with pytest.raises(InvalidArgument) as error:
        client.jobs.create(path)
    assert words in str(error.value)


def test_a_spec_is_json_and_nothing_else(client: Client, tmp_path: Path) -> None:
    """B15: YAML is not read, whatever its tags, anchors and words mean: the answer has the place."""
    path = tmp_path / "spec.yaml"
    path.write_text("base: !!python/object/apply:os.system [id]\nseed: NO\n")
    with pytest.raises(InvalidArgument, match="is not JSON: line 1, column 1"):
        client.jobs.create(path)


@pytest.mark.parametrize("parameters", [5, [5], {"lora.rank": [4, 8]}], ids=str)
def test_parameters_of_a_search_that_are_none(parameters: object) -> None:
    """B12: what stands there in another form is refused by its field, before anything is sent."""
    with pytest.raises(InvalidArgument, match="1 field that is wrong") as error:
        read_plan({"parameters": parameters})
    assert [each.field for each in error.value.fields] == ["plan.parameters"]
