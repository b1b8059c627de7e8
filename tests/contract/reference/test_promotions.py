"""Reference cases of promotion: 000-31 (which files), 000-32 (the path), with those of 000-02, 000-11 and 000-21."""

import asyncio
from pathlib import Path

import pytest

from tests.contract.test_registry_promotions import PUBLISHED, promoting
from tests.support.event_loop import on_loop
from tests.support.registry import refused
from tuneforge.errors import Reason
from tuneforge.promotion_paths import matching, path_problem
from tuneforge.v1 import promotions_pb2 as pb


@pytest.mark.parametrize("case", ["000-31"])
def test_only_files_that_fit_a_pattern_are_stored(case: str) -> None:
    """The default patterns keep five of the seven files; a template's own patterns replace them."""
    patterns = ["*.json", "*.yaml", "*.csv", "*.pt", "*.ckpt"]
    written = ["metrics.csv", "model.pt", "last.ckpt", "config.json", "hparams.yaml", "events.log", "weights.bin"]
    assert matching(written, patterns) == ["metrics.csv", "model.pt", "last.ckpt", "config.json", "hparams.yaml"]
    assert matching(written, ["*.log"]) == ["events.log"], case


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        pytest.param("molecules/mnist/mnist_test", True, id="000-32-and-000-21"),
        pytest.param("domain/algorithm_name/application", True, id="000-32-and-000-02"),
        pytest.param("", True, id="000-32-and-000-11-not-promotable"),
        pytest.param("molecules/mnist", False, id="000-32-two-parts"),
        pytest.param("/a/b/c", False, id="000-32-leading-slash"),
        pytest.param("a/../c", False, id="000-32-dot-segment"),
    ],
)
def test_a_promotion_path_has_three_parts(value: str, is_right: bool) -> None:
    """The forms that are taken as a field, and those that are not."""
    assert (path_problem(value) == "") is is_right


@on_loop
async def test_the_registry_takes_and_refuses_the_same_paths(tmp_path: Path) -> None:
    """000-32 over the wire: right paths are promoted to path and job id, an empty one is refused, wrong ones named."""
    async with promoting(tmp_path) as world:
        for value in ("molecules/mnist", "/a/b/c", "a/../c"):
            await refused(world.promote(path=value), Reason.INVALID_FIELD)
        await refused(world.promote(path=""), Reason.NOT_PROMOTABLE)
        for value in ("molecules/mnist/mnist_test", "domain/algorithm_name/application"):
            done = await world.ended(world.promote(path=value))
            assert (done.state, done.destination) == (pb.PROMOTION_STATE_COMPLETED, f"{value}/job-7")
            assert (world.deploy / value / "job-7" / "config.json").exists()
            await world.ended(world.unpromote())


@on_loop
async def test_patterns_choose_the_files_of_a_promotion(tmp_path: Path) -> None:
    """000-31 over the wire: files that fit no pattern are not copied."""
    async with promoting(tmp_path) as world:
        done = await world.ended(world.promote(patterns=["*.json", "*.yaml", "*.csv", "*.pt", "*.ckpt"]))
        assert done.state == pb.PROMOTION_STATE_COMPLETED
        suffixes = {path.suffix for path in world.place.iterdir()}
        assert suffixes == {".json"}, "the weights are safetensors, which no pattern fits"


@on_loop
async def test_a_promotion_is_asked_for_once_however_often_it_is_called(tmp_path: Path) -> None:
    """As in the first system: completed answers the same, in progress starts nothing, only completed is taken back."""
    async with promoting(tmp_path) as world:
        answers = await asyncio.gather(*(world.promote() for _ in range(5)))
        assert len({answer.destination for answer in answers}) == 1
        done = await world.ended(world.get(PUBLISHED))
        assert [pb.PromotionState.Name(each.state) for each in done.changes] == [
            "PROMOTION_STATE_COMPLETED",
            "PROMOTION_STATE_IN_PROGRESS",
        ]
        await world.ended(world.unpromote())
        await refused(world.unpromote(), Reason.WRONG_STATE)
