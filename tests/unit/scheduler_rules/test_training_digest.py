"""What a training digest depends on and what it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.scheduler.lifecycle.training_digest import TrainingInputs, branched_digest, canonical, training_digest
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    FullMethod,
    Guards,
    LoraMethod,
    Optimization,
    Resources,
    TrainingSpec,
)

SPEC = TrainingSpec(
    base=BaseModel(model="projects/p/models/m/versions/1"),
    method=LoraMethod(rank=4),
    data=DataConfig(train=DataSource(dataset="projects/p/datasets/d/versions/1"), max_tokens=128),
    optimization=Optimization(learning_rate=1e-3, max_steps=10),
)
INPUTS = TrainingInputs(spec=SPEC, base_digest="a" * 64, train_digest="b" * 64, environment="cpu", code="1.0")


def with_spec(**changes: Any) -> TrainingInputs:
    """Returns the inputs with a changed spec."""
    return replace(INPUTS, spec=replace(SPEC, **changes))


@pytest.mark.parametrize(
    "other",
    [
        with_spec(output_model="projects/p/models/other"),
        with_spec(base=BaseModel(model="projects/p/models/copy/versions/7")),
        with_spec(data=replace(SPEC.data, train=DataSource(dataset="projects/p/datasets/copy/versions/2"))),
        with_spec(checkpointing=Checkpointing(every_steps=3, keep_last=9)),
        with_spec(resources=Resources(memory_bytes=10**9, lost_after_s=5.0, node_labels={"zone": "a"})),
        with_spec(guards=Guards(stall_after_s=5.0)),
        with_spec(seed=0),
    ],
)
def test_what_changes_no_result_changes_no_digest(other: TrainingInputs) -> None:
    """Names, where a run is made and how often it is saved leave the digest as it is."""
    assert training_digest(other) == training_digest(INPUTS)


def test_what_changes_a_result_changes_the_digest() -> None:
    """Each other input gives a digest of its own."""
    others = [
        replace(INPUTS, base_digest="c" * 64),
        replace(INPUTS, train_digest="c" * 64),
        replace(INPUTS, validation_digest="c" * 64),
        replace(INPUTS, environment="NVIDIA H200"),
        replace(INPUTS, code="1.1"),
        with_spec(seed=1),
        with_spec(method=LoraMethod(rank=8)),
        with_spec(method=FullMethod()),
        with_spec(optimization=replace(SPEC.optimization, learning_rate=2e-3)),
        with_spec(data=replace(SPEC.data, max_tokens=64)),
        with_spec(resources=Resources(nodes=2)),
        with_spec(guards=Guards(allow_no_effect=True)),
    ]
    digests = {training_digest(each) for each in (INPUTS, *others)}
    assert len(digests) == len(others) + 1
    branched = {branched_digest(training_digest(INPUTS), origin) for origin in (b"a", b"b")}
    assert len(branched | digests) == len(others) + 3


def test_canonical_form_tells_kinds_apart() -> None:
    """Two dataclasses of the same fields are two things, and a mapping's order says nothing."""
    assert canonical(LoraMethod()) != canonical(FullMethod())
    assert canonical({"b": 1, "a": (2, None)}) == {"a": [2, None], "b": 1}
