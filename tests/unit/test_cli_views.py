"""What a watcher sees: the fold over events, the picture on a terminal, the lines in a pipe."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from tuneforge.cli.live_view import LiveView, draw
from tuneforge.cli.plain_view import Outage, line
from tuneforge.cli.progress import Progress
from tuneforge.events import (
    DeviceMetrics,
    DeviceSample,
    EvaluationMetrics,
    Event,
    LogLine,
    LogSeverity,
    Payload,
    ResumedFrom,
    StateChange,
    StepMetrics,
    TaskMetrics,
)

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(payload: Payload, kind: str, attempt: int = 1, seconds: int = 0) -> Event:
    """Makes an event."""
    time = BEGIN + timedelta(seconds=seconds)
    return Event(
        job="projects/p/jobs/j", job_seq=1, attempt=attempt, node_rank=0, seq=1, time=time, kind=kind, payload=payload
    )


def step(number: int, loss: float = 1.0, attempt: int = 1) -> Event:
    """Makes a step event of a run of 100."""
    metrics = StepMetrics(
        step=number,
        total_steps=100,
        epoch=number / 50,
        loss=loss,
        learning_rate=2e-4,
        grad_norm=1.25,
        tokens=800,
        supervised_tokens=100,
        tokens_per_second=812.4,
        step_seconds=0.5,
        eta_s=(100 - number) / 2,
        rows_digest="0" * 16,
    )
    return event(metrics, "step", attempt)


def state(before: str, after: str, seconds: int = 0) -> Event:
    """Makes a change of the job's state."""
    change = StateChange(from_state=before, to_state=after, reason="WHY", message="because")
    return event(change, "state", attempt=0, seconds=seconds)


@pytest.fixture
def running() -> Progress:
    """A run in the middle."""
    progress = Progress(name="projects/p/jobs/my-job")
    progress.take(state("STARTING", "RUNNING"))
    for number in range(1, 51):
        progress.take(step(number, 3.0 - number / 25))
    progress.take(event(EvaluationMetrics(step=50, loss=0.75, supervised_tokens=10, rows=5), "evaluation"))
    sample = DeviceSample(
        index=0,
        utilization_percent=87.0,
        memory_used_bytes=61 * 10**9,
        memory_total_bytes=141 * 10**9,
        power_watts=540.0,
        temperature_celsius=61.0,
    )
    progress.take(
        event(
            DeviceMetrics(devices=(sample,), cpu_percent=180.0, memory_bytes=2**31, memory_peak_bytes=2**32), "device"
        )
    )
    return progress


def rendered(progress: Progress, width: int = 80, seconds: int = 83) -> list[str]:
    """Returns the picture without styles."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(draw(progress, width, BEGIN + timedelta(seconds=seconds)))
    return capture.get().splitlines()


def test_the_picture_shows_state_progress_curve_speed_devices_and_eta(running: Progress) -> None:
    """Everything that a person looks for stands there, in the terminal's width."""
    rows = rendered(running)
    text = "\n".join(rows)
    assert rows[0].strip() == "my-job  RUNNING  1:23"
    for part in ("50/100 steps", "epoch 1.00", "ETA 0:25", "loss 1.0000", "validation 0.7500", "812 tokens/s"):
        assert part in text
    assert "GPU 0   87 %  61 GB of 141 GB  540 W  61 °C" in text
    assert "CPU  180 %" in text
    assert any("⠀" <= character <= "⣿" and character != "⠀" for character in text)
    assert all(len(row) <= 80 for row in rows)


@pytest.mark.parametrize("width", [40, 60, 120, 300])
def test_the_picture_fits_every_width(running: Progress, width: int) -> None:
    """No row is wider than the terminal, so that nothing is broken over two."""
    assert all(len(row) <= width for row in rendered(running, width))


def test_a_break_is_shown_and_goes_away(running: Progress) -> None:
    """While nobody answers the picture says so; the next event takes it away."""
    for seconds in (10, 40):
        running.breaks("the scheduler at 127.0.0.1:7102 does not answer", BEGIN + timedelta(seconds=seconds))
    assert "does not answer; trying again for 1:13" in "\n".join(rendered(running))
    running.take(step(51))
    assert "does not answer" not in "\n".join(rendered(running))


def test_a_resumed_attempt_replaces_the_points_after_its_checkpoint(running: Progress) -> None:
    """The curve has one point a step, that of the newest attempt."""
    running.take(event(ResumedFrom(step=30, attempt=1, digest="d", checkpoint=""), "resumed_from", attempt=2))
    running.take(step(31, 9.0, attempt=2))
    assert [point for point in running.losses if point[0] >= 30][-1] == (31, 9.0)
    assert len(running.losses) == 31
    assert running.attempt == 2


def test_an_attempt_that_begins_again_replaces_all_points(running: Progress) -> None:
    """Without a checkpoint the curve starts anew."""
    running.take(step(1, 5.0, attempt=2))
    assert running.losses == [(1, 5.0)]


def test_the_clock_stops_with_the_job(running: Progress) -> None:
    """A job that has ended shows how long it ran."""
    running.take(state("RUNNING", "PUBLISHING", 90))
    running.take(state("PUBLISHING", "SUCCEEDED", 92))
    assert rendered(running, seconds=5000)[0].strip() == "my-job  SUCCEEDED  1:32"


def test_memory_stays_bounded() -> None:
    """A long run keeps a bounded number of points, the newest among them."""
    progress = Progress()
    for number in range(1, 20_001):
        progress.take(step(number))
    assert len(progress.losses) <= 8192
    assert progress.losses[-1][0] == 20_000


def test_lines_of_a_pipe_are_whole_and_harmless() -> None:
    """Each event is one line, without what would command a terminal."""
    assert line(step(3)) == "3/100  loss 1.0000  grad 1.25  lr 2.00e-04  812 tokens/s  ETA 0:48"
    measured = TaskMetrics(step=3, is_validation=True, values={"rewards_accuracy": 0.75}, rows=8)
    assert line(event(measured, "task")) == "step 3  validation  rewards_accuracy 0.75"
    assert line(state("QUEUED", "STARTING")) == "QUEUED -> STARTING  WHY  because"
    nasty = event(LogLine(severity=LogSeverity.WARNING, message="a\x1b[31mb\x07"), "log")
    assert line(nasty) == "WARNING  a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}"


def test_the_header_of_what_scrolls_by_is_never_older_than_it() -> None:
    """The state below a state's line is that state."""
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as capture, LiveView("projects/p/jobs/my-job", console) as view:
        for before, after in (("STARTING", "RUNNING"), ("RUNNING", "PUBLISHING"), ("PUBLISHING", "SUCCEEDED")):
            view.take(state(before, after))
    _, *pictures = capture.get().split("-> ")
    assert len(pictures) == 3
    for picture, after in zip(pictures, ("RUNNING", "PUBLISHING", "SUCCEEDED"), strict=True):
        assert picture.split("my-job")[1].split()[0] == after


def test_a_finished_bar_is_not_dim(running: Progress) -> None:
    """The end of a job looks like a success."""
    running.take(step(100))
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(draw(running, 80, BEGIN))
    assert "\x1b[32m━" in capture.get()


def test_an_outage_is_told_again_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """Who waits sees for how long; what comes ends the outage."""
    seconds = iter([0.0, 2.0, 31.0, 40.0, 62.0, 100.0])
    outage = Outage(now=lambda: next(seconds))
    for _ in range(5):
        outage.broke("nobody answers")
    outage.over()
    outage.broke("nobody answers")
    assert capsys.readouterr().err.splitlines() == [
        "nobody answers; trying again",
        "nobody answers; trying again for 0:31",
        "nobody answers; trying again for 1:02",
        "nobody answers; trying again",
    ]
