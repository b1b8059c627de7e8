"""Why jobs wait and what comes next, over real sockets, with nodes that a test plays."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner
from google.protobuf.json_format import MessageToJson

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.cli.app import cli
from tuneforge.v1 import events_pb2, explanations_pb2, nodes_pb2, scheduler_pb2, scheduling_pb2, spec_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def explain(stage: Stage, job_id: str = "j1") -> explanations_pb2.JobExplanation:
    """Explains a job."""
    return await stage.stub.ExplainJob(scheduler_pb2.ExplainJobRequest(name=f"projects/p/jobs/{job_id}"))


async def simulate(stage: Stage, **fields: object) -> scheduler_pb2.SimulateJobResponse:
    """Simulates the tiny spec."""
    fields.setdefault("spec", tiny_spec())
    job = scheduler_pb2.CreateJobRequest(parent="projects/p", **fields)  # type: ignore[arg-type]
    return await stage.stub.SimulateJob(scheduler_pb2.SimulateJobRequest(job=job))


async def forecasts(stage: Stage, **fields: object) -> scheduler_pb2.ListForecastsResponse:
    """Lists promises."""
    request = scheduler_pb2.ListForecastsRequest(parent="projects/p", **fields)  # type: ignore[arg-type]
    return await stage.stub.ListForecasts(request)


def reasons(found: explanations_pb2.JobExplanation) -> list[str]:
    """Returns the words of the blockers."""
    name = explanations_pb2.BlockerReason.Name
    return [name(each.reason).removeprefix("BLOCKER_REASON_") for each in found.blockers]


@on_loop
async def test_a_job_without_a_node_says_so(tmp_path: Path) -> None:
    """Nobody answers: the word, the cure, the place in the order, and no promise of a start."""
    async with staged(tmp_path) as stage:
        await stage.create()
        found = await explain(stage)
        assert (found.state, reasons(found)) == ("QUEUED", ["NO_NODE"])
        assert "none has registered" in found.blockers[0].message
        assert found.blockers[0].cure
        assert (found.position.position, found.position.waiting) == (1, 1)
        assert not found.forecast.HasField("start")
        assert "cannot be foreseen" in found.forecast.why


@on_loop
async def test_a_running_job_and_the_one_behind_it(tmp_path: Path) -> None:
    """Slots are taken by the job that runs, whose end is told from its steps; the next one starts when it ends."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("first")
        held = await stage.trainer.started()
        await stage.create("second")
        await stage.create("third")
        held.status.state, held.status.step = nodes_pb2.ATTEMPT_STATE_RUNNING, 5
        for step in range(1, 6):
            metrics = events_pb2.StepMetrics(step=step, total_steps=100, loss=1.0, step_seconds=2.0)
            await stage.trainer.add(held, events_pb2.Event(step=metrics))
        await stage.trainer.until(lambda: held.acks and held.acks[-1] == 5)
        found = await explain(stage, "second")
        assert reasons(found) == ["SLOTS_TAKEN"]
        assert list(found.blockers[0].jobs) == ["projects/p/jobs/first"]
        assert "1 job holds 1 of the 1 slots" in found.blockers[0].message
        assert (found.position.position, found.position.position_in_project, found.position.waiting) == (1, 1, 2)
        assert [(each.node, each.why_not) for each in found.nodes] == [
            ("nodes/n1", "has 0 free slots, 1 are asked for")
        ]
        third = await explain(stage, "third")
        assert list(third.position.ahead) == ["projects/p/jobs/second"]
        assert third.forecast.start.expected.seconds >= found.forecast.end.expected.seconds
        first = await explain(stage, "first")
        assert (first.progress.step, first.progress.total_steps, first.progress.step_seconds) == (5, 100, 2.0)
        assert first.forecast.basis == explanations_pb2.FORECAST_BASIS_STEPS
        left_s = first.forecast.end.expected.seconds - first.observe_time.seconds
        assert 180 <= left_s <= 200  # 95 steps of 2 s, and what comes after the last one
        assert found.forecast.start.expected.seconds == first.forecast.end.expected.seconds
        assert not first.HasField("position")


@on_loop
async def test_a_paused_blocked_and_ended_job_is_explained(tmp_path: Path) -> None:
    """Who paused it, what it waits for, and why it ended."""
    async with staged(tmp_path) as stage:
        await stage.create("base")
        base = spec_pb2.BaseModel(output_of_job="projects/p/jobs/base")
        spec = tiny_spec()
        spec.base.CopyFrom(base)
        await stage.create("child", spec=spec)
        found = await explain(stage, "child")
        assert reasons(found) == ["DEPENDENCY"]
        assert "projects/p/jobs/base in state QUEUED" in found.blockers[0].message
        assert list(found.blockers[0].jobs) == ["projects/p/jobs/base"]
        await stage.create("other")
        wait = scheduling_pb2.Scheduling(depends_on=["projects/p/jobs/other", "projects/p/jobs/child"])
        simulated = (await simulate(stage, scheduling=wait)).simulation
        await stage.create("third", scheduling=wait)
        third = await explain(stage, "third")
        assert not simulated.HasField("position")
        for found_blockers in (simulated.blockers, third.blockers):
            (blocker,) = found_blockers
            assert blocker.reason == explanations_pb2.BLOCKER_REASON_DEPENDENCY
            said = "It waits for projects/p/jobs/child in state BLOCKED and for projects/p/jobs/other in state QUEUED."
            assert (blocker.message, len(blocker.jobs)) == (said, 2)
        await stage.pause("base", reason="lunch")
        found = await explain(stage, "base")
        assert reasons(found) == ["PAUSED"]
        assert "local: lunch" in found.blockers[0].message
        await stage.cancel("base", reason="enough")
        found = await explain(stage, "base")
        assert (found.state, reasons(found)) == ("CANCELLED", [])
        assert "enough" in found.summary
        assert not found.HasField("forecast")


@on_loop
async def test_a_job_that_is_to_start_later_says_when(tmp_path: Path) -> None:
    """Not before its time: the blocker says so, and the start is promised for that moment."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        after = scheduling_pb2.Scheduling()
        after.start_after.FromMilliseconds(stage.clock.now_ms + 3_600_000)
        await stage.create(scheduling=after)
        found = await explain(stage)
        assert reasons(found) == ["START_AFTER"]
        assert "60 min" in found.blockers[0].message
        assert found.forecast.start.expected.seconds == stage.clock.now_ms // 1000 + 3600


@on_loop
async def test_a_simulation_creates_nothing_and_says_what_it_would_do(tmp_path: Path) -> None:
    """A job of a higher class would go before the one that waits and put its end off; the list of jobs stays."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create("runs")
        await stage.trainer.started()
        await stage.create("waits")
        found = (await simulate(stage)).simulation
        assert (found.position.position, found.num_delayed) == (2, 0)
        high = scheduling_pb2.Scheduling(priority=scheduling_pb2.PRIORITY_CLASS_HIGH)
        answer = await simulate(stage, scheduling=high)
        found = answer.simulation
        assert found.position.position == 1
        assert list(found.nodes) == ["nodes/n1"]
        assert "projects/p/jobs/waits" in [each.job for each in found.delayed]
        assert all(each.delay_seconds > 0 for each in found.delayed)
        assert answer.resource_estimate.total_seconds.expected > 0
        listed = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))
        assert len(listed.jobs) == 2


@on_loop
async def test_a_simulation_is_checked_as_a_job_is(tmp_path: Path) -> None:
    """Wrong fields are named, what fits nowhere is refused, a registry that is away is said to be."""
    async with staged(tmp_path, trainer={"memory_bytes": 10**8}) as stage:
        bad = tiny_spec(optimization=spec_pb2.Optimization(learning_rate=-1.0))
        error = await refusal(simulate(stage, spec=bad), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["spec.optimization.learning_rate"]
        missing = scheduler_pb2.CreateJobRequest(parent="projects/p")
        request = scheduler_pb2.SimulateJobRequest(job=missing)
        error = await refusal(stage.stub.SimulateJob(request), "INVALID_ARGUMENT")
        assert [each.field for each in error.fields] == ["job.spec"]
        await stage.trainer.register(stage.address)
        assert (await refusal(simulate(stage), "FAILED_PRECONDITION")).reason == "DOES_NOT_FIT"
        stage.registry.is_away = True
        assert (await refusal(simulate(stage), "UNAVAILABLE")).reason == "PEER_UNAVAILABLE"
        assert (await refusal(explain(stage, "nobody"), "NOT_FOUND")).reason == "NOT_FOUND"


@on_loop
async def test_promises_are_kept_and_held_against_what_came(tmp_path: Path) -> None:
    """The first forecast of a job, and that of an explanation, are listed; when it has ended they are decided."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        foresight = stage.scheduler.foresight
        await stage.trainer.register(stage.address)
        await stage.create("runs")
        held = await stage.trainer.started()
        await stage.create("waits")
        await explain(stage, "waits")
        await foresight.round()
        listed = await forecasts(stage)
        kinds = {(each.job.rpartition("/")[2], each.event, each.source) for each in listed.forecasts}
        start, end = explanations_pb2.FORECAST_EVENT_START, explanations_pb2.FORECAST_EVENT_END
        creation = explanations_pb2.FORECAST_SOURCE_CREATION
        asked = explanations_pb2.FORECAST_SOURCE_EXPLANATION
        # The loop of forecasts runs beside the test: it may have seen the first job before it had its node.
        assert kinds - {("runs", start, creation)} == {
            ("runs", end, creation), ("waits", start, creation), ("waits", end, creation), ("waits", start, asked),
            ("waits", end, asked),
        }  # fmt: skip
        assert (await stage.get("waits")).forecast.HasField("start")
        stage.clock.advance(5)
        await stage.trainer.end(held, SUCCEEDED)
        await stage.until_state("SUCCEEDED", "runs")
        await stage.trainer.started(2)
        await foresight.round()
        listed = await forecasts(stage)
        decided = [each for each in listed.forecasts if each.HasField("real_time")]
        came = {(each.job.rpartition("/")[2], each.event) for each in decided}
        assert came - {("runs", start)} == {("runs", end), ("waits", start)}
        assert all(each.outcome != explanations_pb2.FORECAST_OUTCOME_OPEN for each in decided)
        counts = {each.event: each.decided for each in listed.calibrations}
        assert counts == {start: 2 + (("runs", start) in came), end: 1}
        assert not any(each.is_applied for each in listed.calibrations)
        await stage.cancel("waits")
        await foresight.round()
        only = await forecasts(stage, job="projects/p/jobs/waits")
        ends = [each.outcome for each in only.forecasts if each.event == end]
        assert ends == [explanations_pb2.FORECAST_OUTCOME_VOID] * 2


@on_loop
async def test_a_simulated_job_that_is_created_is_known_again(tmp_path: Path) -> None:
    """The promise of a simulation is held against the job of the same spec and project that came after it."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        await stage.trainer.register(stage.address)
        await simulate(stage)
        listed = await forecasts(stage)
        assert [each.job for each in listed.forecasts] == ["", ""]
        await stage.create("other", spec=tiny_spec(seed=7))
        await stage.create("same")
        await stage.scheduler.foresight.round()
        listed = await forecasts(stage)
        simulated = [each for each in listed.forecasts if each.source == explanations_pb2.FORECAST_SOURCE_SIMULATION]
        assert {each.job for each in simulated} == {"projects/p/jobs/same"}


@on_loop
async def test_pages_of_promises_are_checked(tmp_path: Path) -> None:
    """Pages are walked; a negative size, a wrong token, a job of another project and an unknown one are refused."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        for _ in range(2):
            await simulate(stage)
        page = await forecasts(stage, page_size=3)
        rest = await forecasts(stage, page_size=3, page_token=page.next_page_token)
        assert (len(page.forecasts), len(rest.forecasts), rest.next_page_token) == (3, 1, "")
        assert (await refusal(forecasts(stage, page_size=-1), "INVALID_ARGUMENT")).reason == "INVALID_FIELD"
        wrong = await refusal(forecasts(stage, page_token="x" * 24), "INVALID_ARGUMENT")
        assert wrong.reason == "INVALID_PAGE_TOKEN"
        other = await refusal(forecasts(stage, job="projects/q/jobs/j"), "INVALID_ARGUMENT")
        assert [each.field for each in other.fields] == ["job"]
        assert (await refusal(forecasts(stage, job="projects/p/jobs/no"), "NOT_FOUND")).reason == "NOT_FOUND"


def run(stage: Stage, *arguments: str) -> str:
    """Runs the command line against the scheduler and returns what it printed."""
    found = CliRunner().invoke(cli, ["--scheduler", stage.address, "--project", "p", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


@on_loop
async def test_lists_show_which_jobs_have_no_start_in_sight(tmp_path: Path) -> None:
    """`jobs list` and `jobs show` say it of a job that no known node could hold, and not of one that waits its turn."""
    async with staged(tmp_path) as stage:
        assert stage.scheduler is not None
        await stage.create("wide", spec=tiny_spec(resources=spec_pb2.Resources(nodes=2)))
        await stage.trainer.register(stage.address)
        await stage.create("runs")
        await stage.trainer.started()
        await stage.create("waits")
        await stage.scheduler.foresight.round()
        rows = (await asyncio.to_thread(run, stage, "jobs", "list")).splitlines()
        states = {row.split()[0]: " ".join(row.split()[1:3]) for row in rows}
        assert states["wide"] == "QUEUED NO_START_IN_SIGHT"
        assert not any("NO_START" in states[name] for name in ("runs", "waits"))
        assert "NO_START_IN_SIGHT" in await asyncio.to_thread(run, stage, "jobs", "show", "wide")


@on_loop
async def test_the_command_line_explains_and_simulates(tmp_path: Path) -> None:
    """`job explain`, `jobs simulate` and `jobs forecasts` say the same as the calls, for people and as JSON."""
    spec = tmp_path / "spec.json"
    spec.write_text(MessageToJson(tiny_spec()))
    (tmp_path / "data").mkdir()
    async with staged(tmp_path / "data") as stage:
        assert stage.scheduler is not None
        await stage.trainer.register(stage.address)
        await stage.create("runs")
        await stage.trainer.started()
        await stage.create("waits")
        said = await asyncio.to_thread(run, stage, "job", "explain", "waits")
        assert "waits for SLOTS_TAKEN: 1 job holds 1 of the 1 slots" in said
        assert "jobs: runs" in said
        assert "nodes/n1: has 0 free slots" in said
        plain = json.loads(await asyncio.to_thread(run, stage, "jobs", "explain", "waits", "--json"))
        assert (plain["position"]["position"], plain["blockers"][0]["reason"]) == (1, "SLOTS_TAKEN")
        said = await asyncio.to_thread(run, stage, "jobs", "explain", "runs")
        assert "runs on:" in said
        said = await asyncio.to_thread(run, stage, "jobs", "simulate", str(spec), "--priority", "HIGH")
        assert "created:" in said
        assert "delays waits by" in said
        plain = json.loads(await asyncio.to_thread(run, stage, "jobs", "simulate", str(spec), "--json"))
        assert plain["simulation"]["position"]["position"] == 2
        after = ("--after", "runs", "--exclude-node", "n9")
        assert "created:" in await asyncio.to_thread(run, stage, "jobs", "simulate", str(spec), *after)
        await stage.scheduler.foresight.round()
        said = await asyncio.to_thread(run, stage, "jobs", "forecasts", "waits")
        assert "CREATION" in said
        rows = (await asyncio.to_thread(run, stage, "jobs", "forecasts", "--json")).splitlines()
        assert {json.loads(row)["outcome"] for row in rows} >= {"OPEN"}
        await asyncio.to_thread(run, stage, "jobs", "forecasts", "--summary", "--json")
        said = await asyncio.to_thread(run, stage, "jobs", "list", "--json")
        assert "forecast" in json.loads(said.splitlines()[0])
