"""The picture of `tuneforge top`, from scenes that a test makes."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from tuneforge.cli.progress import Progress
from tuneforge.cli.top import keys_in
from tuneforge.cli.top_picture import draw, spark
from tuneforge.cli.top_scene import Scene
from tuneforge.events import StepMetrics
from tuneforge.explanation_values import ForecastBasis, JobForecast, TimeInterval
from tuneforge.job_values import Job, JobState, job_from_proto
from tuneforge.nodes import Node, NodeState
from tuneforge.v1 import jobs_pb2

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def moment(seconds: float) -> TimeInterval:
    """Returns an interval around a moment from now."""
    at = NOW + timedelta(seconds=seconds)
    return TimeInterval(expected=at, earliest=at - timedelta(seconds=5), latest=at + timedelta(seconds=60))


def job(name: str, state: JobState, *, start_s: float | None = None, end_s: float | None = None) -> Job:
    """Returns a job with a forecast."""
    message = jobs_pb2.Job(name=f"projects/p/jobs/{name}", total_steps=100, step=10)
    message.create_time.FromDatetime(NOW - timedelta(seconds=30))
    forecast = JobForecast(
        start=None if start_s is None else moment(start_s),
        end=None if end_s is None else moment(end_s),
        basis=ForecastBasis.ESTIMATE,
        why="",
        make_time=NOW,
        num_looked_at=2,
        num_waiting=2,
    )
    return replace(job_from_proto(message), state=state, forecast=forecast)


def node(number: int) -> Node:
    """Returns a node with one attempt."""
    return Node(
        name=f"nodes/n{number}", address="127.0.0.1:1", state=NodeState.READY, is_managed=True, devices=(),
        cpu_millis=2000, memory_bytes=8 * 10**9, slots=2, labels={}, lease_expire_time=None, version="1",
        attempts=("projects/p/jobs/runs/attempts/1",),
    )  # fmt: skip


def scene(**values: object) -> Scene:
    """Returns a moment with a running and two waiting jobs."""
    last = StepMetrics(
        step=42, total_steps=100, epoch=0.4, loss=1.25, learning_rate=1e-4, grad_norm=1.0, tokens=10,
        supervised_tokens=10, tokens_per_second=321.0, step_seconds=1.0, eta_s=58.0, rows_digest="",
    )  # fmt: skip
    progress = Progress(name="projects/p/jobs/runs", step=42, total_steps=100, last=last)
    progress.losses = [(float(step), 3.0 - step / 30) for step in range(1, 43)]
    made: dict[str, object] = {
        "time": NOW,
        "scheduler": "127.0.0.1:7102",
        "project": "p",
        "nodes": (node(1), node(2)),
        "jobs": (
            job("later", JobState.QUEUED, start_s=600, end_s=700),
            job("next", JobState.QUEUED, start_s=60, end_s=700),
            job("runs", JobState.RUNNING, end_s=58),
        ),
        "progress": {"projects/p/jobs/runs": progress},
    }
    return Scene(**(made | values))  # type: ignore[arg-type]


def printed(shown: Scene, width: int, height: int | None = None) -> list[str]:
    """Returns the lines of a picture."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw(shown, width, height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_everything_is_there_on_a_wide_terminal() -> None:
    """Nodes, the running job with its figures and its curve, the queue in the order of the expected starts."""
    lines = printed(scene(), 120)
    text = "\n".join(lines)
    assert "nodes 2/2  slots 2/4  running 1  waiting 2" in lines[0]
    (row,) = [line for line in lines if line.startswith("runs")]
    assert all(part in row for part in ("RUNNING", "42/100", "1.25", "█▇", "321", "0:58"))
    assert "NORMAL" in text
    assert text.index("next ") < text.index("later ")


@pytest.mark.parametrize("width", [20, 40, 60, 79])
def test_a_narrow_terminal_keeps_what_counts(width: int) -> None:
    """No line is longer than the terminal, and the jobs are still there."""
    lines = printed(scene(), width)
    assert max(len(line) for line in lines) <= width
    assert any(line.startswith("runs") for line in lines)
    assert any(line.startswith("next") for line in lines)


@pytest.mark.parametrize("width", [79, 100, 120])
def test_a_long_reason_takes_nothing_from_the_names(width: int) -> None:
    """The sentence is cut; name, state and times beside it are whole."""
    change = jobs_pb2.Job(name="projects/p/jobs/x")
    change.last_change.message = "It waits " * 40
    waits = replace(job("a-rather-long-name", JobState.PAUSED), last_change=job_from_proto(change).last_change)
    (row,) = [line for line in printed(scene(jobs=(waits,)), width) if line.startswith("a-rather-long-name ")]
    assert all(part in row for part in ("PAUSED", "0:30", "It waits"))


def test_a_low_terminal_counts_what_it_cannot_show() -> None:
    """Lists are cut to the height, and a line says how many more there are."""
    many = tuple(job(f"j{number:03}", JobState.QUEUED, start_s=number) for number in range(300))
    lines = printed(scene(jobs=many), 100, height=30)
    assert len(lines) <= 30
    assert any("more" in line for line in lines)


def test_jobs_that_nothing_would_give_a_node_are_counted() -> None:
    """The first line has their number, and the row says so where no explanation was asked for."""
    forecast = JobForecast(
        start=None, end=None, basis=ForecastBasis.ESTIMATE, why="It cannot be foreseen.", make_time=NOW,
        num_looked_at=1, num_waiting=1,
    )  # fmt: skip
    alone = replace(job("alone", JobState.QUEUED), forecast=forecast)
    lines = printed(scene(jobs=(alone, job("next", JobState.QUEUED, start_s=60, end_s=700))), 120)
    assert "waiting 2, 1 with no start in sight" in lines[0]
    assert any(line.startswith("alone ") and "It cannot be foreseen." in line for line in lines)
    assert "in sight" not in printed(scene(), 120)[0]


def test_a_scheduler_that_is_away_is_said_to_be() -> None:
    """What is shown is older: since when, and why."""
    away = scene(problem="the scheduler at 127.0.0.1:7102 does not answer", problem_since=NOW - timedelta(seconds=7))
    lines = printed(away, 140)
    assert "does not answer; trying again for 0:07; what stands below is older" in lines[1]
    assert any(line.startswith("runs") for line in lines)


def test_names_cannot_command_a_terminal() -> None:
    """Control characters of a name are replaced."""
    evil = replace(node(1), name="nodes/\x1b[2Jn")
    assert "\x1b" not in "\n".join(printed(scene(nodes=(evil,)), 100))


def test_an_empty_cluster_says_what_to_do() -> None:
    """No node, no job: the picture says so."""
    text = "\n".join(printed(scene(nodes=(), jobs=(), progress={}), 100))
    assert all(part in text for part in ("none; start a trainer", "nothing runs", "nothing waits"))


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0, 2.0], "▁▁▁"),
        ([3.0, 1.0, 2.0], "█▁▅"),
        ([float("nan"), 1.0, float("inf"), 2.0], "▁█"),
    ],
)
def test_a_curve_of_one_line(values: list[float], curve: str) -> None:
    """The highest value is a full bar; numbers that are none are left out; long runs are put together."""
    assert spark(values) == curve
    assert len(spark([float(value) for value in range(1000)])) == 12


@pytest.mark.parametrize(
    ("content", "typed"),
    [(b"q", "q"), (b"\x1b[A", ""), (b"x\x1b[1;5CQ", "xq"), (b"\x1bOP", ""), (b"", "q"), (b"\xff", "\ufffd")],
)
def test_keys_are_read_without_what_arrows_send(content: bytes, typed: str) -> None:
    """A q behind an arrow key is there at once, and a terminal that is gone leaves."""
    assert keys_in(content) == typed
