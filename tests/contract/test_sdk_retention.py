"""Keeping and deleting from the SDK and the command line, against the real registry."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from services.registry.blobs.settings import StorageSettings
from tests.support.event_loop import on_loop
from tests.support.registry import RunningRegistry, running_registry
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client, FailedPrecondition, HolderKind, NotFound
from tuneforge.cli.app import cli
from tuneforge.v1 import aliases_pb2


def run(registry: RunningRegistry, *arguments: str) -> Result:
    """Runs a command of the command line in this process."""
    return CliRunner().invoke(cli, ["--registry", registry.address, *arguments])


@on_loop
async def test_a_version_is_kept_and_let_go(tmp_path: Path) -> None:
    """Pins, expirations and aliases are told by what they are; a pinned version is not deleted."""
    async with running_registry(tmp_path / "data") as registry:

        def act() -> None:
            with Client(registry=registry.address) as client:
                keeping = client.retention.models
                version = client.models.import_folder(make_tiny_model(tmp_path / "model"), "base").name
                client.aliases.set("base", "production", version)
                assert keeping.pin("base@production", "a demo").name == version
                held = keeping.get("base")
                assert [pin.reason for pin in held.pins] == ["a demo"]
                assert {holder.kind for holder in held.holders} == {HolderKind.ALIAS, HolderKind.PIN}
                with pytest.raises(FailedPrecondition, match="alias projects/default/models/base/aliases/production"):
                    keeping.delete_version("base/1")
                when = datetime.now(UTC) + timedelta(days=30)
                assert keeping.expire("base/1", when).expire_time is not None
                assert keeping.expire("base/1", None).expire_time is None
                with pytest.raises(ValueError, match="no time zone"):
                    keeping.expire("base/1", when.replace(tzinfo=None))
                assert not keeping.unpin("base/1").pins
                alias = "projects/default/models/base/aliases/production"
                registry.blocking.DeleteAlias(aliases_pb2.DeleteAliasRequest(name=alias))
                assert keeping.delete("base", force=True, reason="no longer used").num_versions == 1
                with pytest.raises(NotFound):
                    keeping.get("base")
                rows = client.datasets.upload(write_rows(tmp_path / "rows.jsonl"), "rows")
                assert client.retention.datasets.delete_version("rows/1").name == rows.name
                assert client.retention.datasets.delete("rows").num_versions == 0

        await asyncio.to_thread(act)


@on_loop
async def test_a_project_and_the_collector(tmp_path: Path) -> None:
    """How long uploads are kept is set and taken back; a collection tells what it frees before it does."""
    storage = StorageSettings(collect_every_s=0, grace_s=-1)
    async with running_registry(tmp_path / "data", storage=storage) as registry:
        await registry.put(b"twelve bytes")

        def act() -> None:
            with Client(registry=registry.address) as client:
                rules = client.retention
                assert rules.unfinished_uploads() is None
                assert rules.set_unfinished_uploads(timedelta(days=2)) == timedelta(days=2)
                assert rules.set_unfinished_uploads(None) is None
                told = rules.collect(validate_only=True)
                assert (told.freed_bytes, told.num_contents, told.validate_only) == (12, 1, True)
                assert rules.collect().freed_bytes == 12
                assert rules.collect().freed_bytes == 0

        await asyncio.to_thread(act)


@on_loop
async def test_the_command_line_says_what_keeps_and_what_goes(tmp_path: Path) -> None:
    """Each command prints for people, and one JSON object for programs; what is refused ends with an error."""
    storage = StorageSettings(collect_every_s=0, grace_s=-1)
    async with running_registry(tmp_path / "data", storage=storage) as registry:

        def act() -> None:
            with Client(registry=registry.address) as client:
                client.datasets.upload(write_rows(tmp_path / "rows.jsonl"), "rows")
            pinned = run(registry, "datasets", "pin", "rows/1", "--reason", "kept for the audit")
            assert "kept for the audit" in pinned.output
            assert "never" in pinned.output
            refused = run(registry, "datasets", "delete", "rows/1")
            assert refused.exit_code != 0
            assert json.loads(run(registry, "datasets", "kept", "rows/1", "--json").output)["pins"]
            assert run(registry, "datasets", "unpin", "rows/1").exit_code == 0
            assert "expires" in run(registry, "datasets", "expire", "rows/1", "30d").output
            for nonsense in ("soon", "default", "999999w", "99999999d"):
                assert run(registry, "datasets", "expire", "rows/1", nonsense).exit_code == 2
            assert run(registry, "retention", "--uploads", "never").exit_code == 2
            assert run(registry, "datasets", "delete", "rows/1").output == "deleted rows/1\n"
            assert run(registry, "datasets", "delete", "rows").output == "deleted rows with 0 versions\n"
            assert "would free" in run(registry, "gc", "--validate-only").output
            assert json.loads(run(registry, "gc", "--json").output)["num_contents"] == 1
            assert "as the registry is set" in run(registry, "retention").output
            assert "7 days" in run(registry, "retention", "--uploads", "7d").output
            assert "as the registry is set" in run(registry, "retention", "--uploads", "default").output

        await asyncio.to_thread(act)
