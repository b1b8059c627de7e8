"""The record of a run goes into the publication; revoked data and what was made from it are refused for new jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, text

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.records import RecordCheck, check_record
from tuneforge.v1 import events_pb2, lineage_pb2, models_pb2, nodes_pb2
from tuneforge.values import RunRecord

pytestmark = EACH_DATABASE

JOB = "projects/p/jobs/j1"


async def finished(stage: Stage, steps: int) -> RunRecord:
    """Runs a job to its end and returns the record that was published."""
    await stage.trainer.register(stage.address)
    await stage.create()
    attempt = await stage.trainer.started()
    await stage.trainer.emit(attempt, steps)
    await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
    await stage.until_state("SUCCEEDED")
    record = stage.registry.published[JOB].lineage.run_record
    return RunRecord(num_events=record.num_events, head=record.head)


async def check(stage: Stage, record: RunRecord, max_batch: int = 7) -> RecordCheck:
    """Computes the record again from a watch."""
    batches: list[tuple[Sequence[events_pb2.Event], Sequence[int]]] = []
    stream = stage.watch(max_batch=max_batch)
    async for message in stream:
        if message.WhichOneof("payload") == "events":
            assert len(message.events.marks) == len(message.events.events)
            batches.append((message.events.events, message.events.marks))
    return check_record(JOB, "v", record, batches)


@on_loop
async def test_the_published_record_is_that_of_the_watched_events(tmp_path: Path) -> None:
    """Head and count cover everything up to the publication, over restarts and in batches of any size."""
    async with staged(tmp_path) as stage:
        record = await finished(stage, 230)
        assert record.num_events > 230
        for max_batch in (7, 100, 1000):
            assert (await check(stage, record, max_batch)).is_intact
        await stage.restart()
        assert (await check(stage, record)).is_intact


@on_loop
async def test_a_changed_log_is_found(tmp_path: Path) -> None:
    """Who changes one loss in the scheduler's database is found, with the event."""
    async with staged(tmp_path) as stage:
        record = await finished(stage, 150)
        database = stage.scheduler.database if stage.scheduler else None
        assert database is not None

        def tamper(connection: Connection) -> int:
            rows = connection.execute(text("SELECT first_seq, payload FROM chunks ORDER BY first_seq")).all()
            first_seq, payload = max(rows, key=lambda row: len(row.payload))
            batch = events_pb2.EventBatch.FromString(bytes(payload))
            victim = next(event for event in batch.events if event.WhichOneof("payload") == "step")
            victim.step.loss /= 2
            change = text("UPDATE chunks SET payload = :payload WHERE first_seq = :first_seq")
            connection.execute(change, {"payload": batch.SerializeToString(), "first_seq": first_seq})
            return victim.job_seq

        victim = await database.write(tamper)
        await stage.restart()
        found = await check(stage, record)
        assert (found.is_intact, found.first_difference) == (False, victim)


@on_loop
async def test_revoked_data_is_refused_for_new_jobs(tmp_path: Path) -> None:
    """Rows that are revoked, and a base that was made from such rows: the answer says which, by whom, when and why."""
    revocation = lineage_pb2.Revocation(name="projects/p/datasets/rows", actor="ana", reason="no license")
    revocation.time.FromSeconds(1_795_000_000)
    async with staged(tmp_path) as stage:
        for marks in (stage.registry.datasets[DATA].revocations, stage.registry.models[BASE].taints):
            marks.append(revocation)
            status = await refusal(stage.create(), "FAILED_PRECONDITION")
            assert status.reason == "REVOKED"
            for words in ("projects/p/datasets/rows was revoked by ana", "2026-11-18", "no license"):
                assert words in status.message
            del marks[:]
        await stage.create()


@on_loop
async def test_a_refusal_names_no_revoked_data_of_another_project(tmp_path: Path) -> None:
    """What the scheduler is told as a service goes into no answer: neither name nor words of another project."""
    foreign = lineage_pb2.Revocation(name="projects/secret/datasets/letters", actor="ana", reason="a customer asked")
    async with staged(tmp_path) as stage:
        stage.registry.models[BASE].taints.append(foreign)
        status = await refusal(stage.create(), "FAILED_PRECONDITION")
        assert status.reason == "REVOKED"
        assert "data of another project, which is revoked" in status.message
        assert not [word for word in ("secret", "letters", "ana", "customer") if word in status.message]


@on_loop
async def test_a_tower_of_adapters_is_refused(tmp_path: Path) -> None:
    """Fourteen adapters may lie below a new one, fifteen may not: all of them are read at every load."""
    async with staged(tmp_path) as stage:
        below, names = stage.registry.models[BASE], []
        for number in range(1, 16):
            adapter = models_pb2.ModelVersion(
                name=f"projects/p/models/tower/versions/{number}", kind=events_pb2.ARTIFACT_KIND_ADAPTER
            )
            adapter.architecture.CopyFrom(below.architecture)
            adapter.manifest.files.add(path="adapter_model.safetensors", sha256="d" * 64, size_bytes=1)
            adapter.manifest.digest = f"{number:064x}"
            adapter.lineage.base.version, adapter.lineage.base.digest = below.name, below.manifest.digest
            stage.registry.models[adapter.name] = below = adapter
            names.append(adapter.name)
        await stage.create(spec=tiny_spec(base={"model": names[13]}))
        error = await refusal(stage.create("j2", spec=tiny_spec(base={"model": names[14]})), "INVALID_ARGUMENT")
        assert error.reason == "LINEAGE_DEPTH"
        assert "more than 14 adapters" in error.message
