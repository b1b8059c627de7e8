"""Runs `worker.py`: passes its messages on as they come, and ends it with the call that wanted it."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.parent import END_WITH_PARENT
from services.registry.lint.framing import HEADER
from services.registry.models.files import Folder

_ROOT: Final = Path(__file__).parents[3]
_LARGEST_FRAME: Final = 64 * 1024**2
_ERRORS_KEPT: Final = 4000
_PIECE: Final = 64 * 1024
WORK_LIMIT: Final = "The rows need more memory or processor time than the registry gives to one call."


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is to do."""

    kind: str
    """`lint` or `preview`."""
    request: bytes
    """The request's message."""
    files: Folder
    split: str = ""
    """How rows are divided, `ratio:seed`; empty: not."""
    validation: Folder | None = None
    model: Folder | None = None
    """The tokenizer's files."""
    cpu_s: int | None = None
    """Processor time in seconds; None for the worker's own limit."""
    memory_bytes: int | None = None
    """Address space in bytes; None for the worker's own limit."""


async def messages(order: Order) -> AsyncGenerator[bytes]:
    """Yields the messages of a worker's answer; to be closed, so that the worker ends.

    Raises:
        ServiceError: `NOT_FOUND`, `INVALID_FIELD`, `INVALID_DATA`, `INVALID_MODEL`, `WORK_LIMIT`.
    """
    async with _linked(order.model) as folder:
        text = json.dumps(
            {
                "kind": order.kind,
                "request": order.request.hex(),
                "files": _paths(order.files),
                "split": order.split,
                "validation": _paths(order.validation),
                "model": folder,
                "cpu_s": order.cpu_s,
                "memory_bytes": order.memory_bytes,
            }
        )
        process = await _start()
        errors = asyncio.create_task(_last_words(process))
        try:
            await _order(process, text.encode())
            async for kind, data in _frames(process):
                if kind == b"E":
                    raise _refusal(json.loads(data))
                yield data
            code, words = await process.wait(), await errors
        finally:
            if process.returncode is None:
                process.kill()
            await asyncio.shield(_ended(process, errors))
    if code < 0 or "MemoryError" in words:
        raise ServiceError(Reason.WORK_LIMIT, WORK_LIMIT)
    if code:
        raise RuntimeError(f"the worker that lints rows failed: {words}")


async def _start() -> asyncio.subprocess.Process:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": str(_ROOT),
        "TOKENIZERS_PARALLELISM": "false",
        END_WITH_PARENT: str(os.getpid()),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.registry.lint.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env=environment,
    )


async def _order(process: asyncio.subprocess.Process, text: bytes) -> None:
    if process.stdin is None:
        raise AssertionError("stdin is a pipe")
    with suppress(BrokenPipeError, ConnectionResetError):  # its end tells why
        process.stdin.write(text)
        await process.stdin.drain()
        process.stdin.close()


async def _frames(process: asyncio.subprocess.Process) -> AsyncGenerator[tuple[bytes, bytes]]:
    if process.stdout is None:
        raise AssertionError("stdout is a pipe")
    with suppress(asyncio.IncompleteReadError):
        while True:
            kind, length = HEADER.unpack(await process.stdout.readexactly(HEADER.size))
            if length > _LARGEST_FRAME:
                raise RuntimeError(f"the worker that lints rows wrote a frame of {length} bytes")
            yield kind, await process.stdout.readexactly(length)


async def _ended(process: asyncio.subprocess.Process, errors: "asyncio.Task[str]") -> None:
    """Waits for the end; pipes are closed only when they were read to theirs."""
    while process.stdout is not None and await process.stdout.read(_PIECE):
        pass
    await errors
    await process.wait()


async def _last_words(process: asyncio.subprocess.Process) -> str:
    if process.stderr is None:
        raise AssertionError("stderr is a pipe")
    kept = b""
    while piece := await process.stderr.read(_ERRORS_KEPT):
        kept = (kept + piece)[-_ERRORS_KEPT:]
    return kept.decode(errors="replace")


def _refusal(answer: Mapping[str, Any]) -> ServiceError:
    reason, message, field = answer["reason"], answer["message"], answer["field"]
    if reason == Reason.WORK_LIMIT:
        return ServiceError(Reason.WORK_LIMIT, WORK_LIMIT)
    return invalid_fields([FieldViolation(field, message)], reason=reason) if field else ServiceError(reason, message)


@asynccontextmanager
async def _linked(folder: Folder | None) -> AsyncGenerator[str | None]:
    """Gives files under their own names, as a model is loaded; None for none."""
    if folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="tuneforge-lint-") as place:
        for name, file in folder.paths.items():
            (Path(place) / name).symlink_to(file.resolve())
        yield place


def _paths(folder: Folder | None) -> dict[str, str]:
    return {path: str(file) for path, file in folder.paths.items()} if folder else {}
