"""Kills at random points while real jobs run, and judges what is left: `python -m tests.support.chaos.killing`.

A killer chooses a process (a worker, the agent of a node, the scheduler, the registry) at random moments and ends it
with SIGKILL. At the end every job has its one version, every log is dense, and each loss curve is the unbroken one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.scheduler.doctor import examine
from services.scheduler.doctor.__main__ import read_only
from tests.support.chaos.cluster import Cluster, running_cluster
from tests.support.patience import TEST_LIMIT_S
from tuneforge import Client
from tuneforge.errors import AlreadyExists, DeadlineExceeded, TuneforgeError, Unavailable
from tuneforge.events import CheckpointSaved, Event, ResumedFrom, StepMetrics
from tuneforge.job_values import JobState
from tuneforge.specs.spec import (
    BaseModel,
    Checkpointing,
    DataConfig,
    DataSource,
    LoraMethod,
    Optimization,
    Resources,
    TrainingSpec,
)

STEPS = 120
WEIGHTS = {"worker": 9, "scheduler": 5, "agent": 4, "registry": 2}
"""How often each kind is chosen."""
_ENDED = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}
Curve = Mapping[int, tuple[float, float]]
"""Loss and gradient norm by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is done."""

    jobs: int
    kills: int
    specs: int
    """Different specs among the jobs; each has one run that nobody disturbs."""
    seed: int
    nodes: int = 3
    limit_s: float = 1500.0
    """Seconds after which it is over in any case."""


@dataclass(slots=True)
class Findings:
    """What became of it."""

    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    """At least as many as planned: kills need something to break."""
    attempts: int = 0
    resumes: int = 0
    succeeded: int = 0
    gaps_s: list[float] = field(default_factory=list)
    """Seconds from the last event of an attempt to the first step of the next."""
    recoveries: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Returns it as a record."""
        facts: dict[str, Any] = {
            "jobs": self.jobs,
            "succeeded": self.succeeded,
            "kills": self.kills.total(),
            **{f"kills_of_{kind}": count for kind, count in sorted(self.kills.items())},
            "violations": len(self.problems),
            "attempts": self.attempts,
            "resumes_from_a_checkpoint": self.resumes,
            "seconds": round(self.seconds, 1),
        }
        for kind, times in {**self.recoveries, "attempt_to_attempt": self.gaps_s}.items():
            if times:
                facts[f"recovery_of_{kind}_median_s"] = round(statistics.median(times), 2)
                facts[f"recovery_of_{kind}_longest_s"] = round(max(times), 2)
        return facts


def spec_of(number: int) -> TrainingSpec:
    """Returns one of the specs; dropout makes it depend on the random state too."""
    return TrainingSpec(
        base=BaseModel(model="tiny/1"),
        method=LoraMethod(rank=4, dropout=0.1),
        data=DataConfig(train=DataSource(dataset="animals")),
        optimization=Optimization(max_steps=STEPS, rows_per_step=16, learning_rate=1e-3),
        checkpointing=Checkpointing(every_steps=10),
        resources=Resources(lost_after_s=4),
        seed=100 + number,
    )


@dataclass
class Killer:
    """Runs the jobs and ends processes under them."""

    cluster: Cluster
    client: Client
    plan: Plan
    found: Findings = field(default_factory=Findings)
    submitted: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)

    def unbroken(self) -> dict[int, Curve]:
        """Runs each spec once without any fault."""
        handles = {
            number: self.client.jobs.create(spec_of(number), job_id=f"unbroken-{number}")
            for number in range(self.plan.specs)
        }
        curves = {number: curve(list(handle.watch())) for number, handle in handles.items()}
        assert all(handle.refresh().state is JobState.SUCCEEDED for handle in handles.values())
        assert all(len(found) == STEPS for found in curves.values())
        return curves

    def run(self) -> None:
        """Submits, kills and waits until every job has ended and every kill was made."""
        began = time.monotonic()
        with ThreadPoolExecutor(1) as caller:  # calls that wait for a scheduler must not keep it from being started
            self._run(caller, began)
        self.found.seconds = time.monotonic() - began

    def _run(self, caller: Executor, began: float) -> None:
        next_kill = began + 1.0
        next_look = began
        turn: Future[None] = caller.submit(self._call, 0)
        while time.monotonic() - began < self.plan.limit_s:
            self.cluster.tend()
            now = time.monotonic()
            kills = self.found.kills.total()
            if now >= next_look and turn.done():
                turn.result()
                turn = caller.submit(self._call, kills)
                next_look = now + 0.3
            is_idle = len(self.ended) == len(self.submitted)
            if is_idle and kills >= self.plan.kills and len(self.submitted) >= self.plan.jobs and turn.done():
                break
            if kills < self.plan.kills and now >= next_kill and not is_idle:
                self._kill()
                next_kill = now + self.chance.expovariate(1 / 1.2)
            time.sleep(0.02)
        turn.result()

    def _call(self, kills: int) -> None:
        self._submit(kills)
        self._look()

    def _submit(self, kills: int) -> None:
        """Keeps some jobs alive, spread over the kills, so that each kill finds something to break."""
        spread = kills * self.plan.jobs // max(1, self.plan.kills) + min(4, self.plan.jobs // 2)
        due = min(self.plan.jobs, spread)
        if len(self.ended) == len(self.submitted):  # nothing is left to break: one more, even beyond the plan
            due = max(due, len(self.submitted) + 1)
        while len(self.submitted) < due:
            number = len(self.submitted)
            try:
                self.client.jobs.create(spec_of(number % self.plan.specs), job_id=f"job-{number}")
            except AlreadyExists:
                pass  # an answer was lost to a kill, and the job was made
            except (Unavailable, DeadlineExceeded):
                return
            self.submitted.append(f"job-{number}")

    def _look(self) -> None:
        try:
            for job in self.client.jobs.list():
                if job.state in _ENDED and not job.id.startswith("unbroken"):
                    self.ended.add(job.id)
        except (Unavailable, DeadlineExceeded):
            return

    def _kill(self) -> None:
        kind = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        back_in_s = self.chance.choice((0.0, 0.2, 1.0))
        if kind == "worker":
            workers = self.cluster.workers()
            if not workers:
                return
            os.kill(self.chance.choice(workers).pid, signal.SIGKILL)
        else:
            name = f"n{self.chance.randint(1, self.plan.nodes)}" if kind == "agent" else kind
            if not self.cluster.members[name].is_running:
                return
            self.cluster.kill(name, back_in_s)
        self.found.kills[kind] += 1

    # --- the judgement --------------------------------------------------------------------------------------------
    def judge(self, curves: Mapping[int, Curve]) -> None:
        """Compares every job with what was promised; all processes are up again."""
        known = {job.id: job for job in self.client.jobs.list()}
        for number, name in enumerate(self.submitted):
            job = known.get(name)
            if job is None:
                self.found.problems.append(f"{name} is lost")
                continue
            events = list(self.client.jobs.get(name).watch()) if job.state in _ENDED else []
            self.found.problems += [f"{name} {problem}" for problem in problems_of(job.state, events)]
            wanted = curves[number % self.plan.specs]
            if (found := curve(events)) != wanted:
                self.found.problems.append(
                    f"{name} has another loss curve than the unbroken run: {_unlike(found, wanted)}"
                )
                self.found.problems += [f"  {line}" for line in _attempts_of(events)]
                self.found.problems += _first_unlike(events, wanted)
            versions = list(self.client.models.versions(name)) if job.state is JobState.SUCCEEDED else []
            if len(versions) != 1:
                self.found.problems.append(f"{name} is {job.state.name} and has {len(versions)} versions")
            self.found.attempts += job.attempt
            self.found.succeeded += job.state is JobState.SUCCEEDED
            self.found.resumes += sum(isinstance(event.payload, ResumedFrom) for event in events)
            self.found.gaps_s += gaps(events)
        self.found.jobs = len(self.submitted)
        self.found.recoveries = self.cluster.recoveries


def curve(events: Sequence[Event]) -> Curve:
    """Returns loss and gradient norm by step, the newest attempt's where a step was made twice."""
    steps = [event.payload for event in events if isinstance(event.payload, StepMetrics)]
    return {step.step: (step.loss, step.grad_norm) for step in steps}


def _unlike(found: Curve, wanted: Curve) -> str:
    missing = sorted(wanted.keys() - found.keys())
    other = sorted(step for step in found.keys() & wanted.keys() if found[step] != wanted[step])
    return f"the steps {missing} are missing, the steps {other} differ"


def _first_unlike(events: Sequence[Event], wanted: Curve) -> Iterator[str]:
    """Yields all that is known of the first step that differs, and of the one before."""
    for event in events:
        if isinstance(event.payload, StepMetrics):
            step = event.payload
            if (step.loss, step.grad_norm) != wanted.get(step.step):
                yield f"  {event.time} attempt {event.attempt} {step}, unbroken {wanted.get(step.step)}"
                return


def _attempts_of(events: Sequence[Event]) -> Iterator[str]:
    """Yields which steps each attempt told of, and where it began."""
    for attempt in sorted({event.attempt for event in events if event.attempt}):
        mine = [event.payload for event in events if event.attempt == attempt]
        steps = [each.step for each in mine if isinstance(each, StepMetrics)]
        began = [each.step for each in mine if isinstance(each, ResumedFrom)]
        saved = [each.step for each in mine if isinstance(each, CheckpointSaved)]
        told = f"steps {steps[0]} to {steps[-1]}" if steps else "no steps"
        yield f"attempt {attempt} began from {began}, told {told}, saved {saved}"


def problems_of(state: JobState, events: Sequence[Event]) -> Iterator[str]:
    """Yields what is wrong with a job's end and its log."""
    if state is not JobState.SUCCEEDED:
        yield f"is {state.name}"
    if [event.job_seq for event in events] != list(range(1, len(events) + 1)):
        yield "has a log with gaps or repeats"
    by_attempt: dict[int, list[int]] = {}
    for event in events:
        if event.attempt:
            by_attempt.setdefault(event.attempt, []).append(event.seq)
    for attempt, numbers in by_attempt.items():
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"has gaps or repeats in attempt {attempt}"


def gaps(events: Sequence[Event]) -> Iterator[float]:
    """Yields the seconds between attempts."""
    last: Event | None = None
    for event in events:
        if not event.attempt:
            continue
        if isinstance(event.payload, StepMetrics) or last is None or event.attempt == last.attempt:
            if last is not None and event.attempt != last.attempt:
                yield max(0.0, (event.time - last.time).total_seconds())
            last = event


def kill_and_judge(folder: Path, plan: Plan) -> Findings:
    """Does all of it; returns what was found."""
    with running_cluster(folder, plan.nodes) as cluster, cluster.connect() as client:
        killer = Killer(cluster, client, plan)
        curves = killer.unbroken()
        killer.run()
        deadline = time.monotonic() + TEST_LIMIT_S
        while not all(member.is_running and member.answers() for member in cluster.members.values()):
            cluster.tend()
            assert time.monotonic() < deadline, "not all processes come back"
            time.sleep(0.05)
        cluster.tend()
        killer.judge(curves)
    if left := cluster.workers():
        killer.found.problems.append(f"workers were left behind: {left}")
    engine = read_only(folder / "cluster" / "scheduler" / "scheduler.db")
    with engine.connect() as connection, connection.begin():
        killer.found.problems += [str(finding) for finding in examine(connection)]
    engine.dispose()
    return killer.found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs it for somebody who watches; returns the exit code."""
    parser = argparse.ArgumentParser(description="Kill processes at random while real jobs run, and judge the rest.")
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--specs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    asked = parser.parse_args(arguments)
    plan = Plan(jobs=asked.jobs, kills=asked.kills, specs=asked.specs, seed=asked.seed)
    print(f"{plan.kills} kills over {plan.jobs} jobs on {plan.nodes} nodes, seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tuneforge-chaos-") as folder:
        try:
            found = kill_and_judge(Path(folder), plan)
        except TuneforgeError as error:
            print(f"it broke off: {error}")
            return 1
    for key, value in found.facts().items():
        print(f"  {key.replace('_', ' '):40} {value}")
    for problem in found.problems:
        print(f"  VIOLATION {problem}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
