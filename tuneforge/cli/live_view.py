"""A job on a terminal: what happened scrolls above, and below stand progress, loss curve, speed, devices and ETA."""

import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuneforge.cli import curve
from tuneforge.cli.output import clock, printable, short, size
from tuneforge.cli.plain_view import line
from tuneforge.cli.progress import Progress
from tuneforge.events import Event

_STATE_STYLES = {
    "BLOCKED": "yellow",
    "QUEUED": "yellow",
    "STARTING": "cyan",
    "RUNNING": "bold cyan",
    "PAUSING": "yellow",
    "PAUSED": "yellow",
    "PREEMPTING": "yellow",
    "PUBLISHING": "cyan",
    "CANCELLING": "yellow",
    "SUCCEEDED": "bold green",
    "FAILED": "bold red",
    "CANCELLED": "yellow",
}
_SCROLLED = {
    "state",
    "log",
    "checkpoint",
    "sample",
    "resumed_from",
    "gap",
    "resolved",
    "evaluation",
    "outcome",
    "stall",
}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_CURVE_ROWS = 8


class LiveView:
    """Draws a job until it is left; use it with `with`. Safe against its own drawing thread."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._console = console or Console()
        self._progress = Progress(name=name)
        self._lock = threading.Lock()
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=8,
            transient=False,
            redirect_stderr=False,
        )

    @property
    def progress(self) -> Progress:
        """What is known of the job."""
        return self._progress

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def take(self, event: Event) -> None:
        """Takes one event."""
        with self._lock:
            self._progress.take(event)
        if event.kind in _SCROLLED and (text := line(event)):
            self._live.refresh()  # what is printed is followed by the last picture, which must not be an older one
            stamp = f"{event.time.astimezone():%H:%M:%S}"
            self._live.console.print(Text(f"{stamp}  {event.kind:<12}  {text}", style=_scroll_style(event)))

    def broke(self, why: str) -> None:
        """Shows that the stream broke and is opened again."""
        with self._lock:
            self._progress.breaks(why, datetime.now(UTC))

    def _drawn(self) -> RenderableType:
        with self._lock:
            return draw(self._progress, self._console.width, datetime.now(UTC))


def draw(progress: Progress, width: int, now: datetime) -> RenderableType:
    """Returns the picture of a job.

    Args:
        progress: What is known of it.
        width: Of the terminal in characters.
        now: For the time that has passed.
    """
    parts: list[RenderableType] = [_head(progress, now)]
    if progress.total_steps:
        parts.append(_bar(progress))
    if progress.last is not None:
        parts.append(_figures(progress))
    if len(progress.losses) > 1:
        span = (progress.losses[0][0], float(max(progress.total_steps, progress.step)))
        rows = curve.draw(progress.losses, max(30, min(width, 110) - 2), _CURVE_ROWS, x_range=span)
        parts.append(Text("\n".join(f" {row}" for row in rows), style="cyan", no_wrap=True))
    if progress.device is not None:
        parts.append(_devices(progress))
    if progress.broken:
        since = progress.broken_since
        waited = f" for {clock((now - since).total_seconds())}" if since is not None else ""
        said = f" {progress.broken}; trying again{waited}"
        parts.append(Text(said, style="yellow", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _head(progress: Progress, now: datetime) -> RenderableType:
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    is_waiting = progress.state in {
        "BLOCKED",
        "QUEUED",
        "STARTING",
        "PAUSING",
        "PREEMPTING",
        "CANCELLING",
        "PUBLISHING",
    }
    if is_waiting:
        text.append(_SPINNER[int(time.monotonic() * 8) % len(_SPINNER)] + " ")
    text.append(printable(short(progress.name)), style="bold")
    text.append("  ")
    text.append(progress.state or "connecting", style=_STATE_STYLES.get(progress.state, ""))
    if progress.attempt > 1:
        text.append(f"  attempt {progress.attempt}", style="yellow")
    if progress.start_time is not None:
        passed_s = ((progress.end_time or now) - progress.start_time).total_seconds()
        text.append(f"  {clock(passed_s)}", style="bright_black")
    return text


def _bar(progress: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=0)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    said = f"{progress.step}/{progress.total_steps} steps"
    if progress.last is not None:
        epochs = f"/{progress.total_epochs:g}" if progress.total_epochs else ""
        said += f"  epoch {progress.last.epoch:.2f}{epochs}"
        if progress.state == "RUNNING" and progress.step < progress.total_steps:
            said += f"  ETA {clock(progress.last.eta_s)}"
    bar = ProgressBar(total=progress.total_steps, completed=progress.step, finished_style="green")
    grid.add_row("", bar, said)
    return grid


def _figures(progress: Progress) -> RenderableType:
    last = progress.last
    assert last is not None
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    text.append(f"loss {last.loss:.4f}", style="bold cyan")
    if progress.evaluation is not None:
        text.append(f"   validation {progress.evaluation.loss:.4f}", style="bold magenta")
    text.append(
        f"   lr {last.learning_rate:.2e}   {last.tokens_per_second:.0f} tokens/s   {last.step_seconds:.2f} s/step"
    )
    return text


def _devices(progress: Progress) -> RenderableType:
    device = progress.device
    assert device is not None
    lines = [
        f" GPU {each.index}  {each.utilization_percent:3.0f} %  {size(each.memory_used_bytes)} of "
        f"{size(each.memory_total_bytes)}  {each.power_watts:.0f} W  {each.temperature_celsius:.0f} °C"
        + "".join(f"  slowed: {reason.lower().replace('_', ' ')}" for reason in each.throttle_reasons)
        for each in device.devices
    ]
    lines.append(
        f" CPU  {device.cpu_percent:3.0f} %  memory {size(device.memory_bytes)}, peak {size(device.memory_peak_bytes)}"
    )
    return Text("\n".join(lines), style="bright_black", no_wrap=True, overflow="ellipsis")


def _scroll_style(event: Event) -> str:
    if event.kind == "state":
        return "bold" if event.attempt == 0 else ""
    return "" if event.kind in {"evaluation", "sample", "resumed_from", "outcome"} else "bright_black"
