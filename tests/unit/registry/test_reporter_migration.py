"""Scores, reports and policies of an older registry keep what they said when reporters get roles."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from services.grpckit import migrations
from services.grpckit.database import PostgresAddress
from services.grpckit.database.backend import Backend
from services.grpckit.database.postgres import Postgres
from services.grpckit.database.sqlite import Sqlite
from services.registry.gates.evaluation_store import counting_evaluation
from services.registry.models.report_store import counting_reports
from services.registry.retention.holders import holders_of
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from tests.support.postgres import TestDatabases
from tuneforge.names import DatasetVersionName, ModelVersionName
from tuneforge.v1 import gates_pb2

VERSION, PUBLISHED = ModelVersionName("p", "m", 1), ModelVersionName("p", "m", 2)
DATA = DatasetVersionName("p", "d", 1)


@pytest.fixture
def backend(each_database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Backend:
    """An empty database; the test runs for each kind."""
    if each_database == "sqlite":
        return Sqlite(tmp_path / "registry.sqlite")
    databases: TestDatabases = request.getfixturevalue("postgres_databases")
    address: PostgresAddress = databases.empty()
    return Postgres(address)


def test_what_was_reported_before_counts_as_before_for_local_and_for_runs(backend: Backend) -> None:
    """Reports of `local` and of runs count, those of others where they are named; a policy still holds its data."""
    connection = backend.open_writer()
    try:
        backend.claim(connection, "registry")
        migrations.upgrade(connection, MIGRATIONS, None, target="0010")
        with connection.begin():
            _fill(connection)
        migrations.upgrade(connection, MIGRATIONS, "0010", target=SCHEMA_HEAD)
        with connection.begin():
            own = counting_evaluation(connection, VERSION, "e" * 64, "accuracy", ())
            assert own is not None
            assert (own.creator, own.evaluated.mean, own.dataset) == ("local", 0.5, str(DATA))
            assert counting_evaluation(connection, VERSION, "e" * 64, "loss", ()) is None
            named = counting_evaluation(connection, VERSION, "e" * 64, "loss", ("ed",))
            assert named is not None
            assert named.roles == ()
            assert [each.creator for each in counting_reports(connection, VERSION, (), most=9)] == ["local"]
            assert [each.number for each in counting_reports(connection, PUBLISHED, ("role:service",), most=9)] == [1]
            assert [holder.name for holder in holders_of(connection, [DATA])] == ["projects/p/models/m/policies/q"]
    finally:
        connection.close()
        backend.close()


def _fill(connection: Connection) -> None:
    def add(table: str, **values: object) -> None:
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)

    of_model = {"project": "p", "model": "m"}
    add("models", project="p", id="m", description="", create_time_us=1, creator="x", latest=2)
    for number, job in ((1, None), (2, "projects/p/jobs/j")):
        content = {"digest": "a" * 64, "kind": "MODEL", "size_bytes": 1, "record": b"", "tensors": b""}
        add("model_versions", **of_model, version=number, job=job, **content, create_time_us=5, creator="ed")
    for version, validation, creator, time_us in (
        (1, 1, "ed", 5),
        (1, 2, "local", 6),
        (2, 1, "ed", 5),
        (2, 2, "ed", 6),
    ):
        report = {"passed": True, "record": b"", "create_time_us": time_us, "creator": creator}
        add("validation_reports", **of_model, version=version, validation=validation, **report)
    scores = {"digest": "b" * 64, "rows_digest": "c" * 64, "rows": 2, "mean": 0.5, "slices": "[]", "scores": b""}
    for metric, creator in (("accuracy", "local"), ("loss", "ed")):
        key = {"version": 1, "dataset_digest": "e" * 64, "metric": metric, "dataset": str(DATA)}
        add("evaluations", **of_model, **key, **scores, create_time_us=1, creator=creator)
    for policy, revision, is_deletion in (("q", 2, False), ("gone", 2, True)):
        head = {**of_model, "policy": policy, "is_deletion": is_deletion}
        add("gate_policies", **head, alias_pattern="production", revision=revision)
        for number in (1, 2):
            rule = gates_pb2.MetricGate(metric="accuracy", dataset=str(DATA))
            record = gates_pb2.GatePolicy(gates=[gates_pb2.Gate(id="g", metric=rule)]).SerializeToString()
            log = {"record": record, "actor": "x", "reason": "", "time_us": number}
            add("gate_policy_changes", **{**head, "revision": number}, **log)
