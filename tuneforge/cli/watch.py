"""Watching a job from the command line, in the form that fits where stdout goes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import click

from tuneforge.cli.output import print_json, short
from tuneforge.cli.stopping import stoppable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuneforge.errors import TuneforgeError
    from tuneforge.events import Event
    from tuneforge.job_values import Job
    from tuneforge.jobs import JobHandle, Jobs


class _View(Protocol):
    """Something that shows events."""

    def take(self, event: "Event") -> None: ...

    def broke(self, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Beside:
    """What else a command does while a job is shown."""

    stopped: str = ""
    """What Ctrl-C says; empty: that the job goes on."""
    take: "Callable[[Event], None] | None" = None
    """Given each event too."""
    broke: "Callable[[], None] | None" = None
    """Asked at each break of the stream; what it raises ends the watch."""


def watch_job(jobs: "Jobs", name: str, *, as_json: bool, beside: Beside = Beside()) -> None:
    """Shows a job until its end.

    Raises:
        JobFailed: It failed.
        JobCancelled: It was cancelled.
    """
    short_name = short(name)
    message = f"stopped watching; the job goes on. Watch it again: tuneforge jobs watch {short_name}"
    with stoppable(beside.stopped or f"{message}  Stop the job: tuneforge jobs cancel {short_name}"):
        handle = _follow(jobs, name, as_json=as_json, beside=beside)
        if as_json:
            print_json({"kind": "end", "job": handle.job})
        job = handle.result(timeout_s=10.0)
    if not as_json:
        from tuneforge.cli.plain_view import end_line

        click.echo(end_line(job.name, job.state, job.version.version if job.version else None))


def _follow(jobs: "Jobs", name: str, *, as_json: bool, beside: Beside) -> "JobHandle":
    from tuneforge.jobs import JobHandle, WatchOptions

    with _view(name, as_json=as_json) as view:

        def broke(error: "TuneforgeError") -> None:
            if beside.broke is not None:
                beside.broke()
            view.broke(error.message)

        def seen(job: "Job") -> None:
            if (progress := getattr(view, "progress", None)) is not None:
                progress.snapshot(job)

        with jobs.watch(name, options=WatchOptions(on_break=broke), on_snapshot=seen) as stream:
            for event in stream:
                if beside.take is not None:
                    beside.take(event)
                view.take(event)
    return JobHandle(jobs, jobs.read(name))


@contextlib.contextmanager
def _view(name: str, *, as_json: bool) -> "Iterator[_View]":
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not as_json:
        from tuneforge.cli.live_view import LiveView

        with LiveView(name) as live:
            yield live
    else:
        from tuneforge.cli.plain_view import JsonView, PlainView

        yield JsonView() if as_json else PlainView()
