"""SmolLM2-135M, killed after random steps: the run that went on is bit for bit the one that was never killed.

`make chaos` kills it after 20 steps of each method; `make test` after one, which it prints with its seed.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples import smollm2
from services.modelkit.artifacts import LocalArtifact
from services.trainer.engine.training import train
from services.trainer.engine.training_task import TrainingInputs
from tests.support.tiny_model import write_rows
from tests.support.training_run import SPEC, Killed, RecordingSink, apart, never
from tuneforge.manifest import build
from tuneforge.specs.spec import Checkpointing, FullMethod, LoraMethod, Method

KILLS = int(os.environ.get("TUNEFORGE_CHAOS_KILLS", "1"))
SEED = int(os.environ.get("TUNEFORGE_CHAOS_SEED", str(random.SystemRandom().randrange(10_000))))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Leaves torch with the threads that it had."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def inputs_of(folder: Path, method: Method) -> TrainingInputs:
    """Returns the inputs of a run with three steps more than kills, and a checkpoint after every second step."""
    base = smollm2.ensure()
    manifest = build(base)
    optimization = replace(SPEC.optimization, max_steps=KILLS + 3, learning_rate=1e-4, rows_per_step=2)
    return TrainingInputs(
        spec=replace(SPEC, method=method, optimization=optimization, checkpointing=Checkpointing(every_steps=2)),
        base=[LocalArtifact(folder=base, manifest=manifest, kind="model", ref_version="", digest=manifest.digest)],
        train=[write_rows(folder / "rows.jsonl", 8)],
        checkpoints=folder / "checkpoints",
        attempt=1,
        output=folder / "output",
        threads=1,
    )


@pytest.mark.heavy
@pytest.mark.chaos
@pytest.mark.parametrize("method", [LoraMethod(rank=8, dropout=0.1), FullMethod()], ids=["lora", "full"])
def test_a_real_model_killed_at_random_steps_ends_with_the_same_bits(method: Method, tmp_path: Path) -> None:
    """Every loss and gradient norm, and the digest of the result."""
    task = inputs_of(tmp_path, method)
    steps = sorted(random.Random(SEED).sample(range(1, KILLS + 3), KILLS))
    print(f"TUNEFORGE_CHAOS_SEED={SEED}: killed after the steps {steps}")
    unbroken, broken = RecordingSink(), RecordingSink()
    expected = train(apart(task, "unbroken"), unbroken, never)
    result = None
    for attempt, step in enumerate((*steps, 0), start=1):
        sink = RecordingSink(killed_after=step)
        try:
            result = train(replace(task, attempt=attempt), sink, never)
        except Killed:
            assert step
        broken.payloads += sink.payloads
    assert result is not None
    found = {step.step: (step.loss, step.grad_norm, step.rows_digest) for step in broken.steps}
    assert found == {step.step: (step.loss, step.grad_norm, step.rows_digest) for step in unbroken.steps}
    assert len(found) == KILLS + 3
    assert all(norm > 0 for _, norm, _ in found.values())
    assert result.artifact == expected.artifact
