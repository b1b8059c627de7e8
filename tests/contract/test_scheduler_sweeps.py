"""Sweeps over real sockets: each success and each declared error, with trials on a fake node."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

from google.protobuf import field_mask_pb2
from google.protobuf.json_format import MessageToDict

from services.scheduler.sweeps.controller import SweepController
from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_registry import DATA
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec, with_timing
from tests.support.trial_pilot import piloted
from tests.unit.scheduler_sweeps.spaces import plan_of
from tuneforge.v1 import jobs_pb2, queues_pb2, scheduler_pb2, spec_pb2, sweeps_pb2

ID = "8f14e45f-ceea-4e7a-9c1d-000000000001"
RATE = "optimization.learning_rate"
RATES = {RATE: [1e-4, 1e-3, 1e-2]}
NAME = "projects/p/sweeps/s"
GRID = sweeps_pb2.SEARCH_ALGORITHM_GRID
FAST = with_timing(sweep_tick_s=0.02)


def spec() -> spec_pb2.TrainingSpec:
    """Returns a spec whose runs measure a validation loss."""
    data = spec_pb2.DataConfig(validation=spec_pb2.DataSource(dataset=DATA))
    return tiny_spec(data=data, evaluation=spec_pb2.Evaluation(every_steps=1))


def bowl(spec: spec_pb2.TrainingSpec, step: int) -> float:
    """Returns a loss that is the lower, the nearer the rate is to 1e-3, and the longer the run."""
    return abs(math.log10(spec.optimization.learning_rate) + 3) + 1 / step


async def create(stage: Stage, plan: sweeps_pb2.SweepPlan, **fields: Any) -> sweeps_pb2.Sweep:
    """Creates sweep s."""
    request: dict[str, Any] = {"parent": "projects/p", "sweep_id": "s", "spec": spec(), "plan": plan} | fields
    return await stage.stub.CreateSweep(sweeps_pb2.CreateSweepRequest(**request))


async def get(stage: Stage) -> sweeps_pb2.Sweep:
    """Returns sweep s."""
    return await stage.stub.GetSweep(sweeps_pb2.GetSweepRequest(name=NAME))


async def until(stage: Stage, test: Any, trials_too: bool = False) -> Any:
    """Watches sweep s until a test holds for it; returns the sweep, or the sweep and its trials by name."""
    trials: dict[str, sweeps_pb2.Trial] = {}
    stream = stage.stub.WatchSweep(sweeps_pb2.WatchSweepRequest(name=NAME))
    try:
        async for message in stream:
            trials |= {each.name: each for each in message.trials}
            if test(message.sweep):
                return (message.sweep, trials) if trials_too else message.sweep
    finally:
        stream.cancel()
    raise AssertionError("the sweep ended without it")


async def first_runs(stage: Stage) -> None:
    """Waits until the first trial runs."""
    await stage.trainer.started()
    await stage.until_state("RUNNING", "s-1")


def has_ended(sweep: sweeps_pb2.Sweep) -> bool:
    """Returns whether a sweep has ended."""
    return sweep.HasField("end_time")


@EACH_DATABASE
@on_loop
async def test_a_grid_is_tried_whole_and_its_best_trial_found(tmp_path: Path) -> None:
    """Each point once, as jobs of the project; the best one is shown with its job and its version."""
    async with staged(tmp_path, timing=FAST, trainer={"slots": 2}) as stage, piloted(stage.trainer, bowl) as pilot:
        await stage.trainer.register(stage.address)
        plan = plan_of(RATES, 10, algorithm=GRID, parallel_trials=2)
        made = await create(stage, plan, labels={"team": "a"}, request_id=ID)
        assert (made.state, made.combinations, made.cost.trials) == (sweeps_pb2.SWEEP_STATE_RUNNING, 3, 3)
        sweep, trials = await until(stage, has_ended, trials_too=True)
        assert sweep.state == sweeps_pb2.SWEEP_STATE_SUCCEEDED
        assert sweep.message == "Trial 2 of 3 is the best: its validation_loss is 0.25."
        assert sweep.counts.succeeded == 3
        assert sorted(each.optimization.learning_rate for each in pilot.specs) == [1e-4, 1e-3, 1e-2]
        assert sweep.best.parameters[RATE].number_value == 1e-3
        job = await stage.get("s-2")
        assert (job.name, job.trial, dict(job.labels)) == (sweep.best.job, f"{NAME}/trials/2", {"team": "a"})
        assert job.spec.output.model == "projects/p/models/s"
        assert sweep.best.version == job.version
        assert [(each.step, each.value) for each in trials[f"{NAME}/trials/2"].reports][-1] == (4, 0.25)
        assert sweep.device_seconds >= 0
        assert await create(stage, plan, labels={"team": "a"}, request_id=ID) == made
        listed = await stage.stub.ListSweeps(sweeps_pb2.ListSweepsRequest(parent="projects/p"))
        assert [each.name for each in listed.sweeps] == [NAME]


@on_loop
async def test_trials_are_listed_by_pages_and_got_with_their_values(tmp_path: Path) -> None:
    """By number; a list has no values of the metric, a trial has them all; importances need four trials."""
    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, bowl):
        await stage.trainer.register(stage.address)
        space = {RATE: [1e-4, 1e-3, 1e-2], "lora.rank": [2, 4]}
        await create(stage, plan_of(space, 6, algorithm=GRID))
        await until(stage, has_ended)
        first = await stage.stub.ListTrials(sweeps_pb2.ListTrialsRequest(parent=NAME, page_size=4))
        token = first.next_page_token
        rest = await stage.stub.ListTrials(sweeps_pb2.ListTrialsRequest(parent=NAME, page_size=4, page_token=token))
        assert [each.name.rpartition("/")[2] for each in (*first.trials, *rest.trials)] == list("123456")
        assert not rest.next_page_token
        assert not first.trials[0].reports
        trial = await stage.stub.GetTrial(sweeps_pb2.GetTrialRequest(name=f"{NAME}/trials/3"))
        assert MessageToDict(trial)["parameters"] == {RATE: 1e-3, "lora.rank": 2.0}
        assert [each.value for each in trial.reports] == [1.0, 0.5, 1 / 3, 0.25]
        found = await stage.stub.GetSweepImportances(sweeps_pb2.GetSweepImportancesRequest(name=NAME))
        assert (found.round, found.trials) == (1, 6)
        assert found.importances[RATE] > found.importances["lora.rank"]
        for call in (
            stage.stub.GetTrial(sweeps_pb2.GetTrialRequest(name=f"{NAME}/trials/7")),
            stage.stub.GetSweep(sweeps_pb2.GetSweepRequest(name=f"{NAME}x")),
            stage.stub.ListTrials(sweeps_pb2.ListTrialsRequest(parent=f"{NAME}x")),
            stage.stub.GetSweepImportances(sweeps_pb2.GetSweepImportancesRequest(name=f"{NAME}x")),
        ):
            assert (await refusal(call, "NOT_FOUND")).reason == "NOT_FOUND"


@on_loop
async def test_a_bad_sweep_is_refused_whole(tmp_path: Path) -> None:
    """What is wrong with the spec and with the plan comes in one answer, and nothing is stored."""
    async with staged(tmp_path, timing=FAST) as stage:
        wrong = spec()
        wrong.optimization.weight_decay = -1.0
        plan = plan_of({RATE: [0.1, -1.0], "lora.rnk": [4]}, 0)
        error = await refusal(create(stage, plan, sweep_id="S", spec=wrong, labels={"": "x"}), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_FIELD"
        assert {each.field for each in error.fields} >= {
            "sweep_id",
            "labels",
            "spec.optimization.weight_decay",
            "plan.parameters[1].field",
            "plan.num_trials",
        }
        missing = await refusal(
            stage.stub.CreateSweep(sweeps_pb2.CreateSweepRequest(parent="projects/p")), "INVALID_ARGUMENT"
        )
        assert {each.field for each in missing.fields} == {"spec", "plan"}
        # The base's shapes are known, so a rank that it cannot hold is found too.
        (large,) = (await refusal(create(stage, plan_of({"lora.rank": [4, 100_000]})), "INVALID_ARGUMENT")).fields
        assert large.field == "plan.parameters[0].choices.values[1]"
        # What no field has is shown as it came, and told once.
        odd = plan_of({"lora.rank": [4, {"a": "x"}, None], "lora.target_modules": [[], [None], {}]})
        told = (await refusal(create(stage, odd), "INVALID_ARGUMENT")).fields
        assert [(each.field, each.description.partition(": use")[0]) for each in told] == [
            ("plan.parameters[0].choices.values[1]", 'is {"a": "x"}'),
            ("plan.parameters[0].choices.values[2]", "is null"),
            ("plan.parameters[1].choices.values[1]", "is [null]"),
            ("plan.parameters[1].choices.values[2]", "is {}"),
        ]
        assert not (await stage.stub.ListSweeps(sweeps_pb2.ListSweepsRequest(parent="projects/p"))).sweeps


@on_loop
async def test_what_a_sweep_costs_is_known_before_it_begins(tmp_path: Path) -> None:
    """004-43: trials times their share of the data, round by round; nothing is stored."""
    async with staged(tmp_path, timing=FAST) as stage:
        rounds = [
            sweeps_pb2.SweepRound(num_trials=8, train_fraction=0.25),
            sweeps_pb2.SweepRound(num_trials=3, narrow_to_best=2),
        ]
        space = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}}
        found = await create(stage, plan_of(space, 0, rounds=rounds), validate_only=True)
        cost = found.cost
        assert (cost.trials, cost.data_shares) == (11, 5.0)
        assert [(each.trials, each.train_fraction) for each in cost.rounds] == [(8, 0.25), (3, 1.0)]
        assert abs(cost.rounds[0].device_seconds / cost.rounds[1].device_seconds - 2 / 3) < 1e-6
        assert cost.lowest_device_seconds < cost.device_seconds < cost.highest_device_seconds
        assert (await refusal(get(stage), "NOT_FOUND")).reason == "NOT_FOUND"


@on_loop
async def test_trials_keep_to_the_quota_of_their_project(tmp_path: Path) -> None:
    """One that may not wait yet begins when another one has started; one that never could is refused at once."""
    async with staged(tmp_path, timing=FAST) as stage:
        quota = queues_pb2.Quota(max_waiting_jobs=1, max_devices=1)
        queue = queues_pb2.Queue(name="projects/p/queues/default", quota=quota)
        mask = field_mask_pb2.FieldMask(paths=["quota"])
        await stage.stub.UpdateQueue(queues_pb2.UpdateQueueRequest(queue=queue, update_mask=mask))
        large = spec()
        large.resources.nodes = 2
        plan = plan_of(RATES, 3, algorithm=GRID, parallel_trials=3)
        assert (await refusal(create(stage, plan, spec=large), "FAILED_PRECONDITION")).reason == "QUOTA_TOO_SMALL"
        await create(stage, plan)
        await until(stage, lambda found: found.counts.running)
        assert stage.scheduler is not None
        (controller,) = [each for each in stage.scheduler.works if isinstance(each, SweepController)]
        await asyncio.gather(*controller._turns.values())
        told = controller.changed
        assert not await controller._look(1)
        assert controller.changed is told, "or it would look again and again"
        assert len((await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))).jobs) == 1
        async with piloted(stage.trainer, bowl):
            await stage.trainer.register(stage.address)
            sweep = await until(stage, has_ended)
        assert sweep.state == sweeps_pb2.SWEEP_STATE_SUCCEEDED
        assert sweep.counts.succeeded == 3


@on_loop
async def test_a_second_round_is_narrow_and_on_all_rows(tmp_path: Path) -> None:
    """004-43: the first round's best parameters are tried first on all rows, and others only around them."""
    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, bowl) as pilot:
        await stage.trainer.register(stage.address)
        rounds = [
            sweeps_pb2.SweepRound(num_trials=5, train_fraction=0.25),
            sweeps_pb2.SweepRound(num_trials=2, narrow_to_best=1),
        ]
        await create(stage, plan_of({RATE: {"low": 1e-5, "high": 1e-1, "log": True}}, 0, rounds=rounds))
        sweep, trials = await until(stage, has_ended, trials_too=True)
        assert sweep.round == 2
        assert [each.data.train_fraction for each in pilot.specs] == [0.25] * 5 + [0.0] * 2
        found = [trials[f"{NAME}/trials/{n}"] for n in range(1, 8)]
        best = min(found[:5], key=lambda each: each.value)
        rate = best.parameters[RATE].number_value
        assert found[5].parameters[RATE].number_value == rate
        assert rate / 10.01 < found[6].parameters[RATE].number_value < rate * 10.01
        assert sweep.best.round == 2


@EACH_DATABASE
@on_loop
async def test_a_bad_trial_is_stopped_by_what_it_reports(tmp_path: Path) -> None:
    """Its job is cancelled with the reason PRUNED, its device goes to the next trial, and it shows why."""
    pilots = {"gate": asyncio.Event(), "free": 1e-3}
    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, bowl, **pilots) as pilot:
        await stage.trainer.register(stage.address)
        pruning = sweeps_pb2.SweepPruning(
            successive_halving=sweeps_pb2.SuccessiveHalving(min_steps=1, reduction_factor=2)
        )
        plan = plan_of({RATE: [1e-3, 1e-1, 1e-2]}, 3, algorithm=GRID, pruning=pruning)
        await create(stage, plan)
        sweep, trials = await until(stage, has_ended, trials_too=True)
        assert (sweep.counts.pruned, sweep.counts.succeeded) == (2, 1)
        stopped = trials[f"{NAME}/trials/2"]
        assert (stopped.state, stopped.stop_step, stopped.value) == (sweeps_pb2.TRIAL_STATE_PRUNED, 1, 3.0)
        assert "of 2 trials that came to step 1 the best 1 goes on" in stopped.message
        assert pilot.steps["projects/p/jobs/s-2/attempts/1"] < 4
        changes = [event.state for event in await stage.all_events("s-2") if event.HasField("state")]
        assert "PRUNED" in [change.reason for change in changes]
        assert (await stage.get("s-2")).state == jobs_pb2.JOB_STATE_CANCELLED


@on_loop
async def test_a_failed_trial_is_shown_and_the_sweep_fails_by_its_policy(tmp_path: Path) -> None:
    """004-20: one that fails is counted and never the best; more than allowed end the sweep with TRIALS_FAILED."""

    def fails(spec: spec_pb2.TrainingSpec, step: int) -> float:
        if spec.optimization.learning_rate != 1e-3:
            raise ArithmeticError("The loss is nan at step 1.")
        return -1.0 / step

    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, fails):
        await stage.trainer.register(stage.address)
        goal = sweeps_pb2.SweepGoal(direction=sweeps_pb2.GOAL_DIRECTION_MAXIMIZE)
        await create(stage, plan_of(RATES, 3, algorithm=GRID, goal=goal))
        sweep, trials = await until(stage, has_ended, trials_too=True)
        assert (sweep.counts.failed, sweep.counts.succeeded) == (2, 1)
        assert sweep.best.value == -0.25
        assert trials[f"{NAME}/trials/1"].message == "The loss is nan at step 1."
        request = sweeps_pb2.DeleteSweepRequest(name=NAME)
        assert (await stage.stub.DeleteSweep(request)).state == sweeps_pb2.SWEEP_STATE_SUCCEEDED
        assert (await refusal(get(stage), "NOT_FOUND")).reason == "NOT_FOUND"
        assert (await stage.get("s-2")).trial == f"{NAME}/trials/2"
        # The jobs of the deleted sweep keep their names; the new trials' jobs get others.
        await create(stage, plan_of({RATE: [1e-5, 1e-4, 1e-3]}, 3, algorithm=GRID, max_failed_trials=1))
        sweep = await until(stage, has_ended)
        assert sweep.state == sweeps_pb2.SWEEP_STATE_FAILED
        assert sweep.failure.message.startswith("2 trials have failed, 1 are allowed; the last: The loss is nan")
        assert sweep.reason == "TRIALS_FAILED"


@on_loop
async def test_a_pause_takes_the_trials_jobs_with_it(tmp_path: Path) -> None:
    """Paused, nothing runs and nothing begins; resumed, the same trial goes on to its end."""
    async with staged(tmp_path, timing=FAST) as stage:
        gate = asyncio.Event()
        async with piloted(stage.trainer, bowl, gate=gate) as pilot:
            await stage.trainer.register(stage.address)
            await create(stage, plan_of(RATES, 2, algorithm=GRID))
            await first_runs(stage)
            paused = await stage.stub.PauseSweep(sweeps_pb2.PauseSweepRequest(name=NAME, reason="x", request_id=ID))
            assert (paused.state, paused.message) == (sweeps_pb2.SWEEP_STATE_PAUSED, "Paused by local: x")
            await stage.until_state("PAUSED", "s-1")
            assert (await stage.stub.PauseSweep(sweeps_pb2.PauseSweepRequest(name=NAME))).state == paused.state
            gate.set()
            resume = sweeps_pb2.ResumeSweepRequest(name=NAME)
            assert (await stage.stub.ResumeSweep(resume)).state == sweeps_pb2.SWEEP_STATE_RUNNING
            assert (await until(stage, has_ended)).counts.succeeded == 2
            assert [each.optimization.learning_rate for each in pilot.specs] == [1e-4, 1e-4, 1e-3]
            for call in (
                stage.stub.PauseSweep(sweeps_pb2.PauseSweepRequest(name=NAME)),
                stage.stub.ResumeSweep(resume),
                stage.stub.CancelSweep(sweeps_pb2.CancelSweepRequest(name=NAME)),
            ):
                error = await refusal(call, "FAILED_PRECONDITION")
                assert (error.reason, error.metadata["state"]) == ("WRONG_STATE", "SUCCEEDED")


@on_loop
async def test_a_cancelled_sweep_frees_its_devices(tmp_path: Path) -> None:
    """STOPPING while jobs are being cancelled, then CANCELLED; no job of it is left running or waiting."""
    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, bowl, gate=asyncio.Event()):
        await stage.trainer.register(stage.address)
        await create(stage, plan_of(RATES, 3, algorithm=GRID, parallel_trials=3))
        await first_runs(stage)
        early = await refusal(stage.stub.DeleteSweep(sweeps_pb2.DeleteSweepRequest(name=NAME)), "FAILED_PRECONDITION")
        assert early.reason == "WRONG_STATE"
        long = sweeps_pb2.CancelSweepRequest(name=NAME, reason="x" * 1025)
        assert (await refusal(stage.stub.CancelSweep(long), "INVALID_ARGUMENT")).fields[0].field == "reason"
        stopping = await stage.stub.CancelSweep(sweeps_pb2.CancelSweepRequest(name=NAME, request_id=ID))
        assert stopping.state == sweeps_pb2.SWEEP_STATE_STOPPING
        sweep = await until(stage, has_ended)
        assert sweep.state == sweeps_pb2.SWEEP_STATE_CANCELLED
        cancelled = await stage.stub.CancelSweep(sweeps_pb2.CancelSweepRequest(name=NAME))
        assert cancelled.state == sweep.state
        jobs = await stage.stub.ListJobs(scheduler_pb2.ListJobsRequest(parent="projects/p"))
        assert {each.state for each in jobs.jobs} == {jobs_pb2.JOB_STATE_CANCELLED}
        again = await refusal(create(stage, plan_of(RATES)), "ALREADY_EXISTS")
        assert again.reason == "ALREADY_EXISTS"


@EACH_DATABASE
@on_loop
async def test_a_sweep_goes_on_after_a_restart(tmp_path: Path) -> None:
    """Trials that ran meanwhile are settled by their logs; the proposals are those that an unbroken sweep makes."""
    space = {RATE: {"low": 1e-5, "high": 1e-1, "log": True}}
    rates = []
    for folder, restarts in (("whole", False), ("broken", True)):
        async with staged(tmp_path / folder, timing=FAST) as stage:
            gate = asyncio.Event()
            async with piloted(stage.trainer, bowl, gate=gate if restarts else None) as pilot:
                await stage.trainer.register(stage.address)
                await create(stage, plan_of(space, 5, seed=3))
                if restarts:
                    await first_runs(stage)
                    await stage.restart()
                    gate.set()
                    await stage.trainer.beat(stage.address)
                sweep = await until(stage, has_ended)
                assert sweep.counts.succeeded == 5
                rates.append([each.optimization.learning_rate for each in pilot.specs])
    assert rates[0] == rates[1]


@on_loop
async def test_what_was_trained_before_is_not_trained_again(tmp_path: Path) -> None:
    """Where the plan allows it, a job of the project that trained the same stands for a trial, with its values."""
    async with staged(tmp_path, timing=FAST) as stage, piloted(stage.trainer, bowl) as pilot:
        await stage.trainer.register(stage.address)
        await create(stage, plan_of(RATES, 3, algorithm=GRID))
        first = await until(stage, has_ended)
        await stage.stub.DeleteSweep(sweeps_pb2.DeleteSweepRequest(name=NAME))
        wider = {RATE: [1e-2, 1e-3, 1e-5]}
        await create(stage, plan_of(wider, 3, algorithm=GRID, reuse_trained=True))
        sweep, trials = await until(stage, has_ended, trials_too=True)
        assert [each.optimization.learning_rate for each in pilot.specs] == [1e-4, 1e-3, 1e-2, 1e-5]
        assert sweep.counts.succeeded == 3
        assert (sweep.best.value, sweep.best.version) == (first.best.value, first.best.version)
        assert trials[f"{NAME}/trials/2"].message == f"It has the result of {first.best.job}."
        job = await stage.get(sweep.best.job.rpartition("/")[2])
        assert job.reused_from == first.best.job
