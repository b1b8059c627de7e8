"""SIGKILL of the scheduler before and after each commit of a job's creation and cancellation, beside a real registry.

After each kill the next scheduler brings the registry in line: a job that is there and has not ended holds what it
reads, and nothing is held for one that is not.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from tests.support.killed_at import LIMIT_S, Mortal, killed_at
from tests.support.registry import PROJECT, RunningRegistry, running_registry
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge.v1 import datasets_pb2, jobs_pb2, scheduler_pb2, spec_pb2
from tuneforge.v1 import retention_pb2 as pb
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub

JOB = f"{PROJECT}/jobs/one"


def scheduler(folder: Path, registry: str, step: int = 0) -> AbstractContextManager[Mortal]:
    """Runs a scheduler, which dies at a step; 0: never."""
    settings = {
        "TUNEFORGE_DATA": str(folder),
        "TUNEFORGE_REGISTRY_ADDRESS": registry,
        "TUNEFORGE_SCHEDULER_LISTEN": "127.0.0.1:0",
        "TUNEFORGE_SCHEDULER_METRICS_LISTEN": "",
    }
    return killed_at(step, "services.scheduler", settings, folder / "scheduler.log")


def was_killed_at(step: int, folder: Path, registry: str, spec: spec_pb2.TrainingSpec) -> bool:
    """Creates and cancels a job at a scheduler that dies at a step; returns whether it died."""
    with scheduler(folder, registry, step) as service, grpc.insecure_channel(service.address) as channel:
        stub = SchedulerServiceStub(channel)
        stub.ListJobs(scheduler_pb2.ListJobsRequest(parent=PROJECT))
        service.arm()
        try:
            stub.CreateJob(scheduler_pb2.CreateJobRequest(parent=PROJECT, job_id="one", spec=spec))
            stub.CancelJob(scheduler_pb2.CancelJobRequest(name=JOB))
        except grpc.RpcError:
            service.expect_killed()
            return True
        return False


def needs(address: str) -> bool:
    """Returns whether the job is there and has not ended."""
    with grpc.insecure_channel(address) as channel:
        jobs = SchedulerServiceStub(channel).ListJobs(scheduler_pb2.ListJobsRequest(parent=PROJECT)).jobs
    return [job.state for job in jobs] == [jobs_pb2.JOB_STATE_QUEUED]


async def holders(registry: RunningRegistry, versions: list[str]) -> list[list[str]]:
    """Returns who holds each version."""
    answers = [await registry.stub.GetRetention(pb.GetRetentionRequest(name=name)) for name in versions]
    return [[holder.name for holder in answer.holders] for answer in answers]


@pytest.mark.heavy
def test_holds_survive_a_kill_at_each_step(tmp_path: Path) -> None:
    """At every step: what a job reads is held if and only if the job is there and has not ended."""
    asyncio.run(_each_step(tmp_path))


async def _each_step(tmp_path: Path) -> None:
    async with running_registry(tmp_path / "registry") as registry:
        base = await registry.imported(await registry.model(), make_tiny_model(tmp_path / "tiny"))
        content = write_rows(tmp_path / "rows.jsonl", 8).read_bytes()
        manifest = await registry.put_files({"train.jsonl": content})
        parent = await registry.dataset()
        rows = await registry.stub.CreateDatasetVersion(
            datasets_pb2.CreateDatasetVersionRequest(parent=parent, manifest=manifest)
        )
        spec = spec_pb2.TrainingSpec(
            base=spec_pb2.BaseModel(model=base.name),
            supervised=spec_pb2.SupervisedTask(),
            lora=spec_pb2.LoraMethod(rank=4),
            data=spec_pb2.DataConfig(train=spec_pb2.DataSource(dataset=rows.name), max_tokens=32),
        )
        versions, seen = [base.name, rows.name], set()
        for step in itertools.count(1):
            folder = tmp_path / f"step-{step}"
            folder.mkdir()
            died = await asyncio.to_thread(was_killed_at, step, folder, registry.address, spec)
            held_after = await holders(registry, versions) != [[], []]
            with scheduler(folder, registry.address) as service:
                is_needed = await asyncio.to_thread(needs, service.address)
                seen.add((is_needed, held_after))
                assert held_after or not is_needed, "a job was there, and what it reads was not held"
                wanted = [[JOB], [JOB]] if is_needed else [[], []]
                async with asyncio.timeout(LIMIT_S):
                    while await holders(registry, versions) != wanted:
                        pass
            # The next step has a database, and so an owner, of its own: what this one still holds is its own affair.
            await registry.stub.ReleaseVersions(pb.ReleaseVersionsRequest(holder=JOB))
            if not died:
                break
        assert {(True, True), (False, True), (False, False)} <= seen, "no kill came between the hold and the job"
