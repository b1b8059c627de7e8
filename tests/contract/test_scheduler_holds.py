"""What a job reads is held at the registry from before it exists until it has ended, whatever is killed in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA, FakeRegistry
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import staged, tiny_spec
from tuneforge.v1 import jobs_pb2, models_pb2, nodes_pb2

pytestmark = EACH_DATABASE

JOB = "projects/p/jobs/j1"
INPUTS = {(JOB, BASE), (JOB, DATA)}


async def until_held(registry: FakeRegistry, wanted: set[tuple[str, str]]) -> None:
    """Waits until exactly these pairs are held."""
    while registry.holds != wanted:
        registry.held.clear()
        await registry.held.wait()


@on_loop
async def test_a_job_holds_what_it_reads_until_it_ends(tmp_path: Path) -> None:
    """Held when CreateJob answers; released after the cancel; a dry run holds nothing."""
    async with staged(tmp_path) as stage:
        await stage.create(validate_only=True)
        assert stage.registry.holds == set()
        spec = tiny_spec()
        spec.data.validation.dataset = DATA
        await stage.create(spec=spec)
        assert stage.registry.holds == INPUTS
        await stage.cancel()
        await until_held(stage.registry, set())


@on_loop
async def test_a_job_that_is_refused_leaves_the_other_ones_holds(tmp_path: Path) -> None:
    """A taken name and a version that goes at this moment: an error, no job, and no hold but those of who is there."""
    async with staged(tmp_path) as stage:
        await stage.create()
        other = models_pb2.ModelVersion()
        other.MergeFrom(stage.registry.models[BASE])
        other.name = "projects/p/models/tiny/versions/2"
        stage.registry.models[other.name] = other
        spec = tiny_spec()
        spec.base.model = other.name
        await refusal(stage.create(spec=spec), "ALREADY_EXISTS")
        await until_held(stage.registry, INPUTS)
        stage.registry.deleted.add(other.name)
        error = await refusal(stage.create("j2", spec=spec), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec"]
        assert other.name in error.fields[0].description
        await until_held(stage.registry, INPUTS)


@on_loop
async def test_a_restart_makes_good_what_went_wrong(tmp_path: Path) -> None:
    """Holds that a killed CreateJob has left go; those that a registry restored from a backup has lost come again."""
    async with staged(tmp_path) as stage:
        await stage.create()
        await stage.stop()
        stage.registry.holds = {(JOB, "projects/p/models/old/versions/1"), ("projects/p/jobs/never", BASE)}
        await stage.start()
        await until_held(stage.registry, INPUTS)


@on_loop
async def test_what_cannot_be_released_now_is_released_later(tmp_path: Path) -> None:
    """The registry is away when the job ends; no job comes into being without it."""
    async with staged(tmp_path) as stage:
        await stage.create()
        stage.registry.is_away = True
        await stage.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.create("j2")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stage.registry.holds == INPUTS
        stage.registry.is_away = False
        await until_held(stage.registry, set())


@on_loop
async def test_a_waiting_job_holds_its_rows_and_later_its_base(tmp_path: Path) -> None:
    """A job on another's output holds the data at once, and the output as soon as it is there."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("first")
        spec = tiny_spec()
        spec.base.output_of_job = "projects/p/jobs/first"
        blocked = await stage.create("second", spec=spec)
        assert blocked.state == jobs_pb2.JOB_STATE_BLOCKED
        second = "projects/p/jobs/second"
        assert {pair for pair in stage.registry.holds if pair[0] == second} == {(second, DATA)}
        await stage.trainer.end(await stage.trainer.started(), nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.trainer.started(2)
        job = await stage.get("second")
        await until_held(stage.registry, {(second, DATA), (second, job.base.version)})


@on_loop
@pytest.mark.parametrize("is_old", [False, True], ids=["this release", "an older registry"])
async def test_jobs_that_come_together_are_held_together_and_refused_alone(tmp_path: Path, is_old: bool) -> None:
    """Of many submits at once the one whose version goes at this moment is refused; all others are held and there."""
    async with staged(tmp_path) as stage:
        stage.registry.is_old = is_old
        gone = models_pb2.ModelVersion()
        gone.MergeFrom(stage.registry.models[BASE])
        gone.name = "projects/p/models/tiny/versions/2"
        stage.registry.models[gone.name] = gone
        stage.registry.deleted.add(gone.name)
        spec = tiny_spec()
        spec.base.model = gone.name
        good = [f"g{number}" for number in range(12)]
        calls = [stage.create(name) for name in good]
        found = await asyncio.gather(*calls[:6], stage.create("bad", spec=spec), *calls[6:], return_exceptions=True)
        assert [type(each) for each in found if isinstance(each, Exception)] == [grpc.aio.AioRpcError]
        wanted = {(f"projects/p/jobs/{name}", version) for name in good for version in (BASE, DATA)}
        await until_held(stage.registry, wanted)
        before = stage.registry.hold_calls
        await asyncio.gather(*(stage.create(f"h{number}") for number in range(12)))
        assert is_old or stage.registry.hold_calls - before < 12


@on_loop
async def test_who_may_not_be_released_keeps_no_other_hold(tmp_path: Path) -> None:
    """Of many ends at once the release of one is refused: what the others held goes, and its own once it may."""
    async with staged(tmp_path) as stage:
        names = [f"g{number}" for number in range(7)]
        await asyncio.gather(*map(stage.create, names))
        refused = "projects/p/jobs/g3"
        stage.registry.refused_holders = {refused}
        await asyncio.gather(*map(stage.cancel, names))
        await until_held(stage.registry, {(refused, BASE), (refused, DATA)})
        stage.registry.refused_holders = set()
        await until_held(stage.registry, set())
