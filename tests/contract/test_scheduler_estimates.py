"""What a spec would take, over real sockets: arithmetic first, corrected by what finished runs were measured at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import DATA
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.v1 import events_pb2, jobs_pb2, lineage_pb2, nodes_pb2, scheduler_pb2, spec_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED
ROW_TOKENS, STEP_S = 40.0, 0.5


async def estimate(stage: Stage, **fields: object) -> jobs_pb2.ResourceEstimate:
    """Returns what the tiny spec would take."""
    request = scheduler_pb2.EstimateResourcesRequest(parent="projects/p", spec=tiny_spec(**fields))
    return await stage.stub.EstimateResources(request)


async def train(stage: Stage, job_id: str, *, ratio: float, number: int) -> None:
    """Lets a node train a job of two steps whose peak is so many times the arithmetic one."""
    job = await stage.create(job_id, spec=tiny_spec(optimization=spec_pb2.Optimization(max_steps=2)))
    held = await stage.trainer.started(number)
    await stage.trainer.add(held, events_pb2.Event(resolved=events_pb2.Resolved(environment={"device": "cpu"})))
    await stage.trainer.emit(held, 2)
    metrics = {
        "tokens": 2 * 8 * ROW_TOKENS,
        "train_seconds": 2 * STEP_S,
        "peak_memory_bytes": ratio * job.resource_estimate.arithmetic_bytes,
        "cpu_energy_joules": 50.0,
    }
    await stage.trainer.end(held, SUCCEEDED, metrics=metrics)
    await stage.until_state("SUCCEEDED", job_id)


@on_loop
async def test_a_spec_is_estimated_without_a_job(tmp_path: Path) -> None:
    """Memory by part adds up, time comes with the default rate and says so, and nothing is stored."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        found = await estimate(stage)
        memory = found.memory
        parts = [field.name for field, _ in memory.ListFields()]
        kept = {"total_bytes", "lowest_bytes", "highest_bytes"}
        assert memory.total_bytes == sum(getattr(memory, name) for name in parts if name not in kept)
        assert memory.lowest_bytes < memory.total_bytes < memory.highest_bytes
        assert (found.device, found.family, found.rate_runs, memory.runs) == ("cpu", "LlamaForCausalLM", 0, 0)
        assert found.steps == 6  # ten rows, eight a step, three passes
        seconds = found.step_seconds
        assert 0 < seconds.lowest < seconds.expected < seconds.highest
        assert found.total_seconds.expected == pytest.approx(6 * seconds.expected)
        assert not found.HasField("energy_joules")
        assert not found.HasField("cost")
        assert not found.problem
        assert not (await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))).jobs
        assert (await stage.create(validate_only=True)).resource_estimate == found


@on_loop
async def test_what_fits_nowhere_is_estimated_with_the_way_out(tmp_path: Path) -> None:
    """The answer has the estimate and says by how much it misses; `CreateJob` refuses the same spec."""
    async with staged(tmp_path, trainer={"memory_bytes": 10**8}) as stage:
        await stage.trainer.register(stage.address)
        found = await estimate(stage)
        assert found.memory.highest_bytes > 10**8
        assert "too little" in found.problem
        error = await refusal(stage.create(), "FAILED_PRECONDITION")
        assert error.message == found.problem


@on_loop
async def test_every_kind_of_device_is_estimated(tmp_path: Path) -> None:
    """The answer is for the first kind that could hold it, and lists the others; who fits on none is refused."""
    device = nodes_pb2.Device(model="NVIDIA H200", memory_bytes=141 * 10**9)
    async with staged(tmp_path) as stage, serve_trainer(FakeTrainer(name="nodes/n2", devices=[device])) as other:
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        found = await estimate(stage)
        assert (found.device, [each.device for each in found.alternatives]) == ("NVIDIA H200", ["cpu"])
        assert found.memory.host_bytes > 3 * 10**9
        on_cpu = found.alternatives[0]
        assert (on_cpu.problem, on_cpu.memory.host_bytes) == ("", 0)
        assert on_cpu.memory.total_bytes < found.memory.total_bytes
        assert on_cpu.step_seconds.expected > found.step_seconds.expected
        alone = await estimate(stage, resources=spec_pb2.Resources(devices_per_node=0))
        assert (alone.device, alone.memory, list(alone.alternatives)) == ("cpu", on_cpu.memory, [])
        other.memory_bytes = 2 * 10**9  # too little beside the accelerator
        await other.register(stage.address)
        found = await estimate(stage)
        assert (found.device, found.problem) == ("cpu", "")
        assert found.alternatives[0].problem == "nodes/n2 has 2.0 GB of memory on the host"
        await stage.create()
        await stage.trainer.started(1)
        assert not other.starts
        stage.trainer.memory_bytes = 10**8
        await stage.trainer.register(stage.address)
        error = await refusal(stage.create("j2"), "FAILED_PRECONDITION")
        assert error.reason == "DOES_NOT_FIT"


@on_loop
async def test_more_devices_than_one_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """Slots of a node are no devices of one process: the answer says how a run gets more."""
    async with staged(tmp_path, trainer={"slots": 2}) as stage:
        await stage.trainer.register(stage.address)
        error = await refusal(stage.create(spec=tiny_spec(resources={"devices_per_node": 2})), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec.resources.devices_per_node"]
        assert "ask for more `resources.nodes`" in error.fields[0].description


@on_loop
async def test_finished_runs_correct_the_next_estimate(tmp_path: Path) -> None:
    """After three runs memory and time are what was measured, within 30 %, and the table has them."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        before = await estimate(stage)
        for number, ratio in enumerate((0.9, 1.1, 1.3), start=1):
            await train(stage, f"j{number}", ratio=ratio, number=number)
        found = await estimate(stage)
        assert found.memory.runs == found.rate_runs == 3
        assert found.memory.total_bytes == pytest.approx(1.1 * before.memory.total_bytes, rel=1e-3)
        assert found.memory.highest_bytes >= 1.3 * before.memory.total_bytes
        assert found.tokens_per_step == 8 * ROW_TOKENS  # of the same rows
        assert found.step_seconds.expected == pytest.approx(STEP_S, rel=0.3)
        assert found.energy_joules.expected == pytest.approx(50.0 * found.total_seconds.expected, rel=0.01)
        listed = (await stage.stub.ListCalibrations(scheduler_pb2.ListCalibrationsRequest())).calibrations
        assert [(each.family, each.method, each.compute, each.device, each.runs) for each in listed] == [
            ("LlamaForCausalLM", "lora", "auto", "cpu", 3)
        ]
        ratios = listed[0].memory_ratio
        assert (ratios.lowest, ratios.expected, ratios.highest) == pytest.approx((0.9, 1.1, 1.3), rel=1e-3)
        full = await estimate(stage, full=spec_pb2.FullMethod())
        assert (full.memory.runs, full.rate_runs) == (0, 0)  # another method


@on_loop
async def test_a_wrong_spec_is_not_estimated(tmp_path: Path) -> None:
    """Every wrong field is named; a missing spec, revoked data and a registry that is away have their own answers."""
    async with staged(tmp_path) as stage:
        error = await refusal(
            estimate(stage, optimization=spec_pb2.Optimization(learning_rate=-1.0), seed=1), "INVALID_ARGUMENT"
        )
        assert [each.field for each in error.fields] == ["spec.optimization.learning_rate"]
        request = scheduler_pb2.EstimateResourcesRequest(parent="projects/p")
        error = await refusal(stage.stub.EstimateResources(request), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec"]
        rows = stage.registry.datasets[DATA]
        rows.revocations.append(lineage_pb2.Revocation(name=rows.name, actor="ann", reason="consent was withdrawn"))
        assert (await refusal(estimate(stage), "FAILED_PRECONDITION")).reason == "REVOKED"
        stage.registry.is_away = True
        assert (await refusal(estimate(stage), "UNAVAILABLE")).reason == "PEER_UNAVAILABLE"


@on_loop
async def test_pages_of_calibrations_are_checked(tmp_path: Path) -> None:
    """A negative size and a token of another list are refused; without runs there is nothing to list."""
    async with staged(tmp_path) as stage:
        list_all = stage.stub.ListCalibrations
        assert not (await list_all(scheduler_pb2.ListCalibrationsRequest())).calibrations
        error = await refusal(list_all(scheduler_pb2.ListCalibrationsRequest(page_size=-1)), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_FIELD"
        wrong = scheduler_pb2.ListCalibrationsRequest(page_token="x" * 24)
        assert (await refusal(list_all(wrong), "INVALID_ARGUMENT")).reason == "INVALID_PAGE_TOKEN"
