"""Remembered sums are the sums."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.scheduler import arithmetic
from services.scheduler.wire.inputs import model_facts
from tests.support.fake_registry import FakeRegistry
from tuneforge.specs.memory import estimate
from tuneforge.specs.spec import LoraMethod, Resources, TrainingSpec
from tuneforge.specs.workload import flops_per_token

SPECS = [
    TrainingSpec(method=LoraMethod(rank=rank), resources=Resources(nodes=nodes, node_labels={"a": "b"}))
    for rank in (4, 16)
    for nodes in (1, 2)
]


def facts() -> object:
    """Returns the facts of a version, as they come from the registry each time."""
    return model_facts(next(iter(FakeRegistry().models.values())))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_remembered_sums_are_the_sums(on_cpu: bool) -> None:
    """Each spec gets its own sums, at the first time and from memory."""
    architecture = model_facts(next(iter(FakeRegistry().models.values()))).architecture
    for spec in SPECS * 2:
        assert arithmetic.memory(spec, architecture, on_cpu=on_cpu) == estimate(spec, architecture, on_cpu=on_cpu)
        assert arithmetic.operations(spec, architecture, 64.0) == flops_per_token(spec, architecture, 64.0)


def test_the_output_has_no_part_in_the_sums() -> None:
    """Jobs that differ in their names alone share what was counted."""
    architecture = model_facts(next(iter(FakeRegistry().models.values()))).architecture
    first = arithmetic.memory(SPECS[0], architecture, on_cpu=True)
    named = replace(SPECS[0], output_model="projects/p/models/other")
    assert arithmetic.memory(named, architecture, on_cpu=True) is first


def test_the_same_content_is_the_same_thing() -> None:
    """A version that is asked for again gives the same facts, by which sums are remembered."""
    assert facts() is facts()
