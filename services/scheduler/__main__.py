"""`python -m services.scheduler`: serves the scheduler until SIGTERM or Ctrl-C."""

from __future__ import annotations

import gc
import sys

from services.grpckit.server import run, serve
from services.scheduler.service import build, definition_of
from services.scheduler.settings import SchedulerSettings

SWITCH_S = 0.001
"""Seconds after which a busy thread lets another one compute. 1 ms: the thread that writes lets go at each statement,
and would wait Python's 5 ms for the event loop each time."""

YOUNG_OBJECTS = 10_000
"""New objects after which Python looks through the newest for cycles, instead of 700: a submit makes a hundred, and
every hundredth time it looks through all, ten thousand queued jobs among them, while nobody computes."""


async def main() -> int:
    """Serves; returns the exit code."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(YOUNG_OBJECTS)
    settings = SchedulerSettings.from_env()
    return await serve(definition_of(build(settings)), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="scheduler"))
