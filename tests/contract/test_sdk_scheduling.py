"""When and where jobs run, drains and the ledger, as a user types them, against a real scheduler."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA
from tests.support.scheduling import Stage, staged
from tuneforge import Client, FieldViolation, InvalidArgument, PriorityClass, Scheduling
from tuneforge.cli.app import cli
from tuneforge.v1 import nodes_pb2

SPEC = {"base": {"model": BASE}, "supervised": {}, "lora": {"rank": 4}, "data": {"train": {"dataset": DATA}}}


async def typed(stage: Stage, *arguments: str) -> Result:
    """Runs a command line against the stage."""
    env = {"TUNEFORGE_SCHEDULER_ADDRESS": stage.address, "TUNEFORGE_PROJECT": "p"}
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=env)


def said(done: Result) -> str:
    """Returns what the program prints of it: its output, or the error with its fields."""
    fields = done.exception.fields if isinstance(done.exception, InvalidArgument) else ()
    return f"{done.output}{done.exception} {' '.join(each.description for each in fields)}"


def now_at(stage: Stage) -> datetime:
    """Returns this moment by the stage's clock."""
    return datetime.fromtimestamp(stage.clock.now_ms / 1000, UTC)


@on_loop
async def test_flags_say_when_and_where(tmp_path: Path) -> None:
    """Class, window, places and amounts with units are stored with the job, and shown."""
    async with staged(tmp_path) as stage:
        base = ("jobs", "submit", "--base", BASE, "--data", DATA, "--max-tokens", "128")
        done = await typed(stage, *base, "--job-id", "first")
        assert done.exit_code == 0, done.output
        done = await typed(
            stage, *base, "--job-id", "second", "--priority", "HIGH", "--no-preempt", "--start-after", "+2h",
            "--deadline", "2999-01-01T00:00+00:00", "--after", "first", "--exclude-node", "old",
            "--exclude-label", "spot", "--exclude-label", "zone=b", "--cpus", "500m", "--memory", "1Gi",
            "--node-label", "zone=a",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        job = await stage.get("second")
        assert job.scheduling.exclude_nodes == ["nodes/old"]
        assert job.scheduling.exclude_labels == {"spot": "", "zone": "b"}
        assert job.scheduling.depends_on == ["projects/p/jobs/first"]
        assert (job.spec.resources.cpu_millis, job.spec.resources.memory_bytes) == (500, 2**30)
        assert job.spec.resources.node_labels == {"zone": "a"}
        shown = (await typed(stage, "jobs", "show", "second")).output
        for words in ("high", "never", "2999-01-01", "old, spot, zone=b"):
            assert words in shown
        as_json = json.loads((await typed(stage, "jobs", "show", "second", "--json")).output)
        assert as_json["scheduling"]["priority"] == "high"


@on_loop
async def test_wrong_flags_are_refused_with_a_cure(tmp_path: Path) -> None:
    """Amounts, moments and classes that are none."""
    async with staged(tmp_path) as stage:
        base = ("jobs", "submit", "--base", BASE, "--data", DATA)
        cases = {
            ("--cpus", "two"): "2000m",
            ("--memory", "1 gig"): "2048Mi",
            ("--start-after", "tomorrow"): "+2h",
            ("--priority", "urgent"): "'high'",
            ("--node-label", "zone"): "KEY=VALUE",
            ("--exclude-node", "No Node"): "No Node",
            ("--deadline", "2001-01-01T00:00"): "later",
        }
        stage.clock.now_ms = 1_700_000_000_000
        for flags, words in cases.items():
            done = await typed(stage, *base, *flags)
            assert done.exit_code != 0, flags
            assert words in said(done), (flags, said(done))


@on_loop
async def test_the_sdk_sends_moments_with_a_time_zone_only(tmp_path: Path) -> None:
    """A moment without one is refused here; everything that is wrong comes back with its field."""
    async with staged(tmp_path) as stage:

        def use() -> list[FieldViolation]:
            with Client(scheduler=stage.address, project="p") as client:
                naive = Scheduling(deadline=datetime(2999, 1, 1))
                with pytest.raises(InvalidArgument, match="time zone"):
                    client.jobs.create(SPEC, scheduling=naive)
                checked = client.jobs.validate(SPEC, scheduling=Scheduling(priority=PriorityClass.LOW))
                assert checked.scheduling.priority is PriorityClass.LOW
                both = Scheduling(deadline=now_at(stage) - timedelta(hours=1), device_kinds=("",))
                with pytest.raises(InvalidArgument) as caught:
                    client.jobs.create(SPEC, scheduling=both)
                return list(caught.value.fields)

        fields = await asyncio.to_thread(use)
        assert [each.field for each in fields] == ["scheduling.deadline", "scheduling.device_kinds[0]"]


@on_loop
async def test_a_node_is_drained_and_undrained_by_hand(tmp_path: Path) -> None:
    """The list says why and until when; the ledger of an idle project is empty."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        done = await typed(stage, "nodes", "drain", "n1", "--reason", "new disks", "--deadline", "+30m")
        assert done.output == "n1: DRAINING\n"
        assert "new disks, its jobs leave at" in (await typed(stage, "nodes", "list")).output
        await stage.create()
        assert not stage.trainer.starts
        assert (await typed(stage, "nodes", "undrain", "n1")).output == "n1: READY\n"
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        stage.clock.advance(5)
        await stage.trainer.end(attempt, nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.until_state("SUCCEEDED")
        assert "0:05" in (await typed(stage, "jobs", "ledger")).output
        ledger: dict[str, Any] = json.loads((await typed(stage, "jobs", "ledger", "--json")).output)
        assert (ledger["attained"], ledger["preemptions"]) == (5.0, 0)
        unknown = await typed(stage, "nodes", "drain", "nobody")
        assert unknown.exit_code == 1
        assert "nobody" in said(unknown)
