"""`python -m services.scheduler`: serves the scheduler until SIGTERM or Ctrl-C."""

from __future__ import annotations

import sys

from services.grpckit.server import run, serve
from services.scheduler.service import build, definition_of
from services.scheduler.settings import SchedulerSettings


async def main() -> int:
    """Serves; returns the exit code."""
    settings = SchedulerSettings.from_env()
    return await serve(definition_of(build(settings)), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="scheduler"))
