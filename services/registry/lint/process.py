"""Runs `worker.py`: passes its messages on as they come, and ends it with the call that wanted it."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.child_process import Child, started
from services.registry.folder import Folder
from services.registry.lint.framing import HEADER

_WORKER: Final = Child(module="services.registry.lint.worker", environment={"TOKENIZERS_PARALLELISM": "false"})
_LARGEST_FRAME: Final = 64 * 1024**2
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
        async with started(_WORKER) as worker:
            await worker.give(text.encode())
            async for kind, data in _frames(worker.stdout):
                if kind == b"E":
                    raise _refusal(json.loads(data))
                yield data
            end = await worker.ended()
    if end.is_exhausted:
        raise ServiceError(Reason.WORK_LIMIT, WORK_LIMIT)
    if end.code:
        raise RuntimeError(f"the worker that lints rows failed: {end.words}")


async def _frames(answer: asyncio.StreamReader) -> AsyncGenerator[tuple[bytes, bytes]]:
    with suppress(asyncio.IncompleteReadError):
        while True:
            kind, length = HEADER.unpack(await answer.readexactly(HEADER.size))
            if length > _LARGEST_FRAME:
                raise RuntimeError(f"the worker that lints rows wrote a frame of {length} bytes")
            yield kind, await answer.readexactly(length)


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
