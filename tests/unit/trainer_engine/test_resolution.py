"""Open choices: made once, written down, and held at a resume."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.trainer.engine.corpus import Corpus, FlatExamples
from services.trainer.engine.resolution import (
    Resolution,
    asked,
    check_environment,
    check_spec,
    lowered,
    resolve,
)
from services.trainer.engine.training_task import TrainingFault
from tests.support.tiny_networks import examples
from tuneforge.errors import Reason
from tuneforge.specs.defaults import with_defaults
from tuneforge.specs.spec import (
    Checkpointing,
    ComputeType,
    FullMethod,
    LoraMethod,
    Method,
    Optimization,
    QloraMethod,
    Resources,
    TrainingSpec,
)

CPU = torch.device("cpu")


def corpus(lengths: list[int]) -> Corpus:
    """Returns rows of random tokens."""
    return Corpus(
        examples=FlatExamples.of(examples(lengths)), dropped=0, cut=0, digest="0", end_token=None, is_chat=True
    )


def resolved(method: Method, lengths: list[int], *, rows_at_once: int = 0) -> Resolution:
    """Resolves a spec on two threads of a CPU."""
    spec = with_defaults(TrainingSpec(method=method, optimization=Optimization(rows_per_micro_batch=rows_at_once)))
    return resolve(spec, corpus(lengths), {"train": "0"}, base=Path("nowhere"), device=CPU, threads=2)


def test_a_resolution_survives_its_checkpoint() -> None:
    """What is read back from JSON is what was decided."""
    found = resolved(LoraMethod(rank=3, dropout=0.25, target_modules=("q_proj",)), [100] * 20)
    assert Resolution.from_json(found.to_json()) == found


def test_another_release_is_named() -> None:
    """A checkpoint whose resolution cannot be read is refused in words."""
    content = resolved(LoraMethod(), [100]).to_json()
    for broken in ({**content, "more": 1}, {**content, "spec": {"unheard_of": 1}}):
        with pytest.raises(TrainingFault) as caught:
            Resolution.from_json(broken)
        assert caught.value.reason is Reason.RESUME_MISMATCH


@pytest.mark.parametrize(("length", "expected"), [(100, 5), (60, 8), (1000, 1)])
def test_rows_at_once_are_chosen_by_their_length(length: int, expected: int) -> None:
    """Without a wish, as many rows as fit 512 tokens are computed at once, at most those of a step."""
    found = resolved(LoraMethod(), [length] * 20)
    assert found.spec.optimization.rows_per_micro_batch == expected
    assert found.micro_batch_tokens == 512


@pytest.mark.parametrize("lengths", [[100] * 20, [60] * 10 + [300] * 3, [1000] * 4])
def test_a_resolved_spec_resolves_to_itself(lengths: list[int]) -> None:
    """An attempt that begins anew under the spec of the first one cuts its steps alike: the same bits."""
    first = resolved(LoraMethod(), lengths)
    again = resolve(first.spec, corpus(lengths), {"train": "0"}, base=Path("nowhere"), device=CPU, threads=2)
    assert (again.spec, again.micro_batch_tokens) == (first.spec, first.micro_batch_tokens)


def test_a_wish_for_rows_at_once_counts_alone() -> None:
    """Rows that were asked for are computed at once, however long they are."""
    found = resolved(LoraMethod(), [400] * 20, rows_at_once=6)
    assert (found.spec.optimization.rows_per_micro_batch, found.micro_batch_tokens) == (6, 2400)


@pytest.mark.parametrize("method", [QloraMethod(), FullMethod()])
def test_costlier_parts_are_larger(method: Method) -> None:
    """Where each part has a price of its own, more tokens are computed at once."""
    assert resolved(method, [100] * 20).micro_batch_tokens == 1024


def test_the_formats_and_steps_are_decided() -> None:
    """No AUTO is left, and the number of steps is that of three passes."""
    found = resolved(LoraMethod(), [100] * 20)
    assert found.spec.compute is not ComputeType.AUTO
    assert found.total_steps == 9
    assert found.environment["threads"] == "2"


def test_what_changes_no_number_may_change() -> None:
    """Another pace of checkpoints, other resources and another output are the same question; another seed is not."""
    spec = with_defaults(TrainingSpec(method=LoraMethod()))
    same = replace(
        spec, checkpointing=Checkpointing(every_steps=7, keep_last=9), resources=Resources(nodes=1), output_model="m"
    )
    assert asked(same) == asked(spec)
    assert asked(replace(spec, seed=1)) != asked(spec)


def test_fewer_rows_at_once_are_told_and_can_be_resumed() -> None:
    """Rows and tokens shrink alike, the environment says from what to what, and both specs may go on from it."""
    first = resolved(LoraMethod(), [60] * 20)
    halved = lowered(first, 4)
    assert (halved.spec.optimization.rows_per_micro_batch, halved.micro_batch_tokens) == (4, 256)
    assert lowered(halved, 4) == halved
    assert lowered(first, 0) == first
    quarter = lowered(halved, 2)
    told = "8 rows at once, then 4: memory ran out; 4 rows at once, then 2: memory ran out"
    assert quarter.environment == {**first.environment, "rows_at_once": told}
    assert Resolution.from_json(quarter.to_json()) == quarter
    for spec in (first.spec, halved.spec):
        check_spec(first, spec, is_lowered=True)
    check_environment(quarter, device=CPU, threads=2)
    with pytest.raises(TrainingFault):
        check_spec(first, halved.spec)
    with pytest.raises(TrainingFault):
        check_spec(first, replace(halved.spec, seed=9), is_lowered=True)
