"""Queues and budgets through the SDK and the command line, against the real scheduler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from services.scheduler.queues.budgets import Price
from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA
from tests.support.scheduling import Stage, staged
from tuneforge import Budget, Client, Conflict, QueueChange
from tuneforge.cli.app import cli
from tuneforge.errors import FailedPrecondition, Reason

EURO = Price(per_device_hour=2.5, currency="EUR")


async def run(stage: Stage, *arguments: str) -> Result:
    """Runs a command beside the scheduler."""
    environment = {"TUNEFORGE_SCHEDULER_ADDRESS": stage.address, "TUNEFORGE_PROJECT": "p"}
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)


@on_loop
async def test_the_sdk_reads_and_changes_queues(tmp_path: Path) -> None:
    """Values come back as they were set; a stale etag is a Conflict; what is None stays."""
    async with staged(tmp_path, price=EURO) as stage:

        def use() -> None:
            with Client(scheduler=stage.address, project="p") as client:
                assert list(client.queues.list()) == []
                before = client.queues.get()
                assert (before.project, before.weight, before.budget, before.update_time) == ("p", 1.0, None, None)
                budget = Budget(device_seconds=3600.0, cost=9.0, currency="EUR")
                change = QueueChange(weight=2.0, max_jobs=3, device_hours=5.0, window_hours=24, budget=budget)
                after = client.queues.update(change, etag=before.etag)
                assert (after.weight, after.quota.max_jobs, after.quota.window_hours) == (2.0, 3, 24)
                assert (after.budget, after.status.spent.currency) == (budget, "EUR")
                with pytest.raises(Conflict):
                    client.queues.update(QueueChange(is_paused=True), etag=before.etag)
                free = client.queues.update(QueueChange(max_jobs=0, budget=Budget()), project="p")
                assert (free.weight, free.quota.max_jobs, free.budget) == (2.0, 0, None)
                assert [each.project for each in client.queues.list()] == ["p"]

        await asyncio.to_thread(use)


@on_loop
async def test_the_command_line_shows_and_sets(tmp_path: Path) -> None:
    """`queues set` changes, `show` and `list` print, wrong flags are told; budgets travel with submit and resume."""
    async with staged(tmp_path, price=EURO) as stage:
        changed = await run(stage, "queues", "set", "--weight", "3", "--max-devices", "8", "--budget-cost", "40EUR")
        assert changed.exit_code == 0, changed.output
        shown = await run(stage, "queues", "show")
        assert "weight:" in shown.stdout
        assert "0 of 8" in shown.stdout
        assert "of 40.00 EUR" in shown.stdout
        row = json.loads((await run(stage, "queues", "list", "--json")).stdout)
        assert (row["name"], row["quota"]["max_devices"]) == ("projects/p/queues/default", 8)
        assert "project" in (await run(stage, "queues", "list")).stdout.lower()
        nothing = await run(stage, "queues", "set")
        assert (nothing.exit_code, "nothing to change" in nothing.stderr) == (2, True)
        wrong = await run(stage, "queues", "set", "--budget-cost", "much")
        assert (wrong.exit_code, "12.50EUR" in wrong.stderr) == (2, True)
        flags = ("--base", BASE, "--data", DATA, "--max-tokens", "128", "--job-id", "j1")
        made = await run(stage, "jobs", "submit", *flags, "--budget-device-hours", "1e-6")
        assert made.exit_code == 0, made.output
        assert "warning: Its budget of" in made.stderr
        paused = await run(stage, "jobs", "pause", "j1")
        assert "PAUSED" in paused.stdout
        refused = (await run(stage, "jobs", "resume", "j1")).exception
        assert isinstance(refused, FailedPrecondition)
        assert (refused.reason, "0 of 0.0036 device-seconds" in refused.message) == (Reason.BUDGET_SPENT, True)
        more = await run(stage, "jobs", "resume", "j1", "--budget-device-hours", "2")
        assert "QUEUED" in more.stdout
        assert "of 2 device-hours" in (await run(stage, "jobs", "show", "j1")).stdout
