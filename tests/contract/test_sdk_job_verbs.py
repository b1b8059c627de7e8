"""A job's later life from the SDK and the command line, against the real scheduler."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tests.support.event_loop import on_loop
from tests.support.fake_registry import BASE, DATA
from tests.support.scheduling import Stage, staged
from tuneforge import Client, JobFilter, JobOptions, JobOrder, JobState, QueueChange, RetryPolicy, Reuse
from tuneforge.cli.app import cli
from tuneforge.cli.job_selection import labels_of, moment_of, seconds_of
from tuneforge.errors import InvalidArgument
from tuneforge.v1 import nodes_pb2

SPEC = {"base": {"model": BASE}, "supervised": {}, "lora": {"rank": 4}, "data": {"train": {"dataset": DATA}}}


async def typed(stage: Stage, *arguments: str, answer: str = "") -> Result:
    """Runs a command in project p."""
    environment = {"TUNEFORGE_SCHEDULER_ADDRESS": stage.address, "TUNEFORGE_PROJECT": "p", "TZ": "UTC"}
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment, input=answer)


@on_loop
async def test_many_jobs_from_the_command_line(tmp_path: Path) -> None:
    """Options say which jobs; what would be done is shown and asked first; a refusal changes nothing."""
    async with staged(tmp_path) as stage:
        for number in range(3):
            await stage.create(f"j{number}", labels={"team": "ab"[number % 2]})
        dry = await typed(stage, "jobs", "cancel", "--state", "queued", "--label", "team=a", "--dry-run")
        assert dry.stdout == "2 of 2 jobs would be cancelled\n  j0\n  j2\n"
        refused = await typed(stage, "jobs", "cancel", "--label", "team=a", answer="n\n")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "2 of 2 jobs would be cancelled" in refused.stderr
        done = await typed(stage, "jobs", "cancel", "--state", "queued", "--label", "team=a", "--yes")
        assert (done.exit_code, done.stdout) == (0, "2 of 2 jobs cancelled\n")
        listed = await typed(stage, "jobs", "list", "--label", "team", "--order", "ended-last", "--json")
        assert [json.loads(line)["name"][-2:] for line in listed.stdout.splitlines()] == ["j2", "j0"]
        found = await typed(stage, "jobs", "list", "--search", "J1", "--since", "1970-01-01")
        assert [line.split()[:2] for line in found.stdout.splitlines()[1:]] == [["j1", "QUEUED"]]
        none = await typed(stage, "jobs", "list", "--class", "high", "--sweep", "s")
        assert (none.exit_code, none.stdout) == (0, "")
        usual = await typed(stage, "jobs", "list", "--class", "high", "--class", "normal", "--search", "j1")
        assert [line.split()[0] for line in usual.stdout.splitlines()[1:]] == ["j1"]
        mixed = await typed(stage, "jobs", "delete", "--state", "queued", "--state", "cancelled", "--yes", "--json")
        assert (mixed.exit_code, json.loads(mixed.stdout)["changed"]) == (1, 2)
        assert "j1: projects/p/jobs/j1 is QUEUED" in mixed.stderr
        paused = await typed(stage, "jobs", "pause", "--all", "--yes")
        resumed = await typed(stage, "jobs", "resume", "j1")
        assert (paused.stdout, resumed.stdout) == ("1 of 1 jobs paused\n", "j1: QUEUED\n")
        for arguments in (["jobs", "cancel"], ["jobs", "cancel", "j1", "--all"], ["jobs", "list", "--since", "soon"]):
            assert (await typed(stage, *arguments)).exit_code == 2


@on_loop
async def test_a_job_s_later_life_from_the_command_line(tmp_path: Path) -> None:
    """A job is submitted with its policy, cancelled, run again, and removed after a question."""
    async with staged(tmp_path) as stage:
        spec = tmp_path / "spec.json"
        spec.write_text(json.dumps(SPEC))
        flags = ("--job-id", "j1", "--retries", "2", "--user-retries", "1", "--ttl", "30d", "--reuse", "finished")
        submitted = await typed(stage, "jobs", "submit", "--spec", str(spec), *flags)
        assert submitted.exit_code == 0, submitted.output
        await stage.cancel()
        shown = await typed(stage, "jobs", "show", "j1")
        assert "faults:" in shown.stdout
        assert "2 and 1 left" in shown.stdout
        assert "removed on:" in shown.stdout
        again = await typed(stage, "jobs", "rerun", "j1", "--id", "j2")
        assert again.stdout == "j2: QUEUED, runs j1 again\n"
        assert "runs again:" in (await typed(stage, "jobs", "show", "j2")).stdout
        kept = await typed(stage, "jobs", "delete", "j1", answer="n\n")
        assert kept.exit_code == 1
        assert (await typed(stage, "jobs", "delete", "j1", "--yes")).stdout == "j1: removed\n"
        assert (await typed(stage, "jobs", "show", "j1")).exit_code == 1


@on_loop
async def test_the_sdk_says_the_same(tmp_path: Path) -> None:
    """Filters, options and verbs of the SDK reach the scheduler, and what it answers comes back as plain values."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)

        def begin() -> None:
            with Client(scheduler=stage.address, project="p") as client:
                retry = RetryPolicy(user=2, first_delay_s=0.5)
                options = JobOptions(retry=retry, ttl=timedelta(hours=1), reuse=Reuse.FINISHED)
                job = client.jobs.create(SPEC, job_id="j1", options=options).job
                assert job.faults is not None
                assert (job.faults.policy.user, job.faults.policy.first_delay_s, job.faults.user_left) == (2, 0.5, 2)
                assert (job.ttl_s, len(job.training_digest)) == (3600.0, 64)

        await asyncio.to_thread(begin)
        await stage.trainer.end(await stage.trainer.started(), nodes_pb2.ATTEMPT_STATE_SUCCEEDED)
        await stage.until_state("SUCCEEDED")

        def go_on() -> None:
            with Client(scheduler=stage.address, project="p") as client:
                reused = client.jobs.create(SPEC, job_id="j2", options=JobOptions(reuse=Reuse.FINISHED)).job
                assert (reused.state, reused.reused_from) == (JobState.SUCCEEDED, "projects/p/jobs/j1")
                again = client.jobs.rerun("j1", job_id="j3")
                assert again.rerun_of == "projects/p/jobs/j1"
                where = JobFilter(states=(JobState.SUCCEEDED,), base="projects/p/models/tiny", dataset="rows/3")
                found = [job.id for job in client.jobs.list(where, order=JobOrder.OLDEST)]
                assert found == ["j1", "j2"]
                would = client.jobs.delete_all(where, validate_only=True)
                assert (would.changed, would.names[0]) == (2, "projects/p/jobs/j1")
                assert client.jobs.delete("j2").id == "j2"
                assert client.jobs.delete_all(where).changed == 1
                changed = client.jobs.cancel_all(None, reason="tidy")
                assert (changed.matched, changed.problems) == (1, ())

        await asyncio.to_thread(go_on)


def test_moments_and_spans_are_read_as_people_write_them() -> None:
    """Spans back from now and dates are moments; what is neither is refused with what may be written."""
    assert seconds_of("1.5h") == 5400.0
    assert timedelta(minutes=14) < datetime.now(UTC) - moment_of("15m") < timedelta(minutes=16)
    assert moment_of("2026-05-01T08:00+02:00") == datetime(2026, 5, 1, 6, tzinfo=UTC)
    assert labels_of(("a=b=c", "d")) == {"a": "b=c", "d": ""}
    for wrong in ("", "7 days", "2026-13-01", "1000000d"):
        with pytest.raises(click.BadParameter):
            moment_of(wrong)
    with pytest.raises(click.BadParameter):
        labels_of(("=x",))
    with pytest.raises(click.BadParameter, match="longer than a century"):
        seconds_of("99999999999999999999999999999999d")


def test_an_option_that_is_empty_does_not_mean_every_job() -> None:
    """A variable that a script has not set leaves nothing to be cancelled."""
    given = ["--scheduler", "127.0.0.1:1", "jobs", "cancel", "--state", "queued", "--yes"]
    for option in ("--search", "--model", "--base", "--data", "--since", "--ended-before"):
        answer = CliRunner().invoke(cli, [*given, option, ""])
        assert (answer.exit_code, option in answer.output and "is empty" in answer.output) == (2, True), answer.output


def test_what_a_message_cannot_carry_is_named() -> None:
    """Counts beyond 32 bits are refused with their field, before anything is sent."""
    with Client(scheduler="127.0.0.1:1", project="p") as client:
        with pytest.raises(InvalidArgument, match=r"retry.user: is 99999999999: use a whole number from 0"):
            client.jobs.create(SPEC, options=JobOptions(retry=RetryPolicy(user=99999999999)))
        with pytest.raises(InvalidArgument, match=r"retry.infrastructure: is -1"):
            client.jobs.validate(SPEC, options=JobOptions(retry=RetryPolicy(infrastructure=-1)))
        with pytest.raises(InvalidArgument, match=r"queue.quota.window_hours: is 4294967296"):
            client.queues.update(QueueChange(window_hours=1 << 32))
