"""A suite of a release without lineage, signatures and records: its history is taken over whole, and signed once."""

from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, create_engine, select, text

from services.scheduler.store.tables import chunks, jobs
from tests.support.event_loop import on_loop
from tests.support.registry import PROJECT, refused, running_registry
from tests.support.released import fill, schema_of
from tuneforge import _wire, signatures
from tuneforge.errors import Reason
from tuneforge.records import event_bytes, first_head, next_head
from tuneforge.v1 import events_pb2, models_pb2, signing_pb2
from tuneforge.v1 import lineage_pb2 as pb

DATA = f"{PROJECT}/datasets/animals/versions/2"
SECOND = f"{PROJECT}/models/second/versions/1"


def _scalars(connection: Connection, *, statement: Select[tuple[Any]]) -> list[Any]:
    return list(connection.execute(statement).scalars())


@on_loop
async def test_what_was_there_is_in_the_graph_and_signed(tmp_path: Path) -> None:
    """Versions, jobs and aliases of the release are found by queries, and every version has a good signature."""
    fill(schema_of("registry"), tmp_path / "registry.sqlite", None)
    async with running_registry(tmp_path) as registry:
        request = pb.QueryLineageRequest(name=DATA, direction=pb.LINEAGE_DIRECTION_DESCENDANTS)
        names = {node.name.removeprefix(f"{PROJECT}/") for node in (await registry.stub.QueryLineage(request)).nodes}
        made = {f"models/{name}/versions/1" for name in ("lora", "full", "second")}
        moved = {f"models/{name}/aliases/production" for name in ("lora", "full")}
        assert names == {"datasets/animals/versions/2", "jobs/lora", "jobs/full", "jobs/second"} | made | moved
        path = pb.FindLineagePathRequest(name=SECOND, other=f"{PROJECT}/models/tiny/versions/1")
        found = (await registry.stub.FindLineagePath(path)).nodes
        assert [node.name.split("/")[3] for node in found] == ["second", "full", "tiny"]
        key = await registry.stub.GetSigningKey(signing_pb2.GetSigningKeyRequest(name="signingKeys/current"))
        for name in ("tiny", "lora", "full", "second"):
            wanted = models_pb2.GetModelVersionRequest(name=f"{PROJECT}/models/{name}/versions/1")
            version = await registry.stub.GetModelVersion(wanted)
            signature, manifest = _wire.signature(version.signature), _wire.manifest(version.manifest)
            signatures.verify(signature, manifest, {key.key_id: key.public_key}, name=version.name)


@on_loop
async def test_nothing_is_signed_afterwards(tmp_path: Path) -> None:
    """Taking a signature out of the database, or marking a version as an old one, does not get it signed anew."""
    fill(schema_of("registry"), tmp_path / "registry.sqlite", None)
    async with running_registry(tmp_path) as registry:
        wanted = signing_pb2.GetSignatureRequest(name=SECOND)
        await registry.stub.GetSignature(wanted)
    engine = create_engine(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE signatures SET key_id = '' WHERE version = :name"), {"name": SECOND})
    engine.dispose()
    async with running_registry(tmp_path) as registry:
        await refused(registry.stub.GetSignature(wanted), Reason.NOT_FOUND)


def test_jobs_that_have_run_get_their_record(tmp_path: Path) -> None:
    """The head of each job of the release is the one that its events give."""
    schema = schema_of("scheduler")
    fill(schema, tmp_path / "scheduler.db", None)
    database = schema.database(tmp_path / "scheduler.db", None)
    database.open()
    try:
        rows = database.read_sync(lambda c: c.execute(select(jobs.c.number, jobs.c.job_id, jobs.c.record_head)).all())
        assert len(rows) == 4
        for row in rows:
            head = first_head(f"{PROJECT}/jobs/{row.job_id}")
            log = select(chunks.c.payload).where(chunks.c.job == row.number).order_by(chunks.c.first_seq)
            for payload in database.read_sync(partial(_scalars, statement=log)):
                for event in events_pb2.EventBatch.FromString(payload).events:
                    head = next_head(head, event_bytes(event))
            assert row.record_head == head
    finally:
        database.close()
