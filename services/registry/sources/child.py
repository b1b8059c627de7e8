"""The registry's side of the child process of an import: starts it, reads its steps, ends it whatever happens."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from services.grpckit.errors import Reason, ServiceError
from services.registry.child_process import Child, inherited, started
from services.registry.sources.faults import Code
from services.registry.sources.protocol import LONGEST_LINE_BYTES, Job, struck_out

_WORKER = "services.registry.sources.worker"


async def steps(job: Job, *, limit_s: float) -> AsyncGenerator[dict[str, Any]]:
    """Yields what the child tells, to `done`; to be closed, so that the child is ended.

    Args:
        job: What is fetched.
        limit_s: Most seconds that it may take.

    Raises:
        ServiceError: As the child tells, or `SOURCE_UNAVAILABLE` when it ended without a word or took too long.
    """
    child = Child(
        module=_WORKER,
        environment=_environment(job.folder),
        is_heard=False,  # libraries may write to stderr what we would have to strike out
        longest_line_bytes=LONGEST_LINE_BYTES,
    )
    try:
        async with started(child) as running:
            await running.give(job.to_json().encode())
            loop = asyncio.get_running_loop()
            ends_at = loop.time() + limit_s
            while True:
                line = await asyncio.wait_for(running.stdout.readline(), ends_at - loop.time())
                if not line:
                    code = (await running.ended()).code
                    raise _unavailable(f"the fetching process ended with code {code}, without an outcome")
                step: dict[str, Any] = json.loads(line)
                if step["step"] == "fault":
                    raise _told(step, job)
                if step["step"] == "full":
                    raise ServiceError(Reason.DISK_FULL, "the registry's disk is full; what has arrived is kept")
                yield step
                if step["step"] == "done":
                    return
    except TimeoutError:
        raise _unavailable(f"it did not end within {limit_s:.0f} seconds; what has arrived is kept") from None


def _told(step: dict[str, Any], job: Job) -> ServiceError:
    reason = Reason(Code(step["code"]).value)
    return ServiceError(reason, struck_out(str(step["message"]), job.secrets)[:400])


def _unavailable(message: str) -> ServiceError:
    return ServiceError(Reason.SOURCE_UNAVAILABLE, message)


def _environment(folder: str) -> dict[str, str]:
    """Returns the child's variables: no credential of the registry's travels along."""
    return {
        **inherited("LANG", "LC_ALL", "VIRTUAL_ENV"),
        "HOME": folder,
        "HF_HOME": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }
