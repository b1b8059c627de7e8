"""The registry's side of the child process of an import: starts it, reads its steps, ends it whatever happens."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from services.grpckit.errors import Reason, ServiceError
from services.registry.sources.faults import Code
from services.registry.sources.protocol import LONGEST_LINE_BYTES, Job, struck_out

_ROOT = Path(__file__).parents[3]
_WORKER = "services.registry.sources.worker"


async def steps(job: Job, *, limit_s: float) -> AsyncGenerator[dict[str, Any]]:
    """Yields what the child tells, to `done`; to be closed, so that the child is ended.

    Args:
        job: What is fetched.
        limit_s: Most seconds that it may take.

    Raises:
        ServiceError: As the child tells, or `SOURCE_UNAVAILABLE` when it ended without a word or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _WORKER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # libraries may write there what we would have to strike out
        env=_environment(job.folder),
        cwd=_ROOT,
        start_new_session=True,  # a Ctrl-C at the registry's terminal is the registry's to hear
        limit=LONGEST_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(job.to_json().encode() + b"\n")
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + limit_s
        while True:
            line = await asyncio.wait_for(process.stdout.readline(), ends_at - loop.time())
            if not line:
                code = await process.wait()
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
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await asyncio.shield(process.wait())


def _told(step: dict[str, Any], job: Job) -> ServiceError:
    reason = Reason(Code(step["code"]).value)
    return ServiceError(reason, struck_out(str(step["message"]), job.secrets)[:400])


def _unavailable(message: str) -> ServiceError:
    return ServiceError(Reason.SOURCE_UNAVAILABLE, message)


def _environment(folder: str) -> dict[str, str]:
    """Returns the child's environment: nothing of the registry's, so that no credential of it travels along."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(_ROOT),
        "HOME": folder,
        "HF_HOME": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }
