"""Engine processes from the side of the service: started, asked, watched, ended. Imports no torch.

One process holds one base. What is in flight when it dies ends with `EngineLost`; who wants it back asks the pool
again.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from services.grpckit.logging import get_logger
from services.inference.framing import Message, pack, read
from services.inference.settings import EngineSettings
from tuneforge.errors import FieldViolation

_log = get_logger(__name__)
_ROOT: Final = Path(__file__).resolve().parents[2]
_END_S: Final = 5.0
"""Seconds an engine gets to end by itself: it notices within one step."""


class EngineLost(Exception):
    """The engine's process ended."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unloadable:
    """Why an engine cannot load a model."""

    reason: str
    message: str
    cure: str
    damaged_digest: str
    """Digest of the artifact that has a damaged file; empty when none has."""
    file: str
    """The damaged file; empty when none is."""


class LoadRefused(Exception):
    """An engine cannot load a model."""

    def __init__(self, why: Unloadable) -> None:
        super().__init__(why.message)
        self.why = why


class PromptsRefused(Exception):
    """Fields of a request are wrong."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(f"{len(violations)} fields are wrong")
        self.violations = tuple(violations)


class ComputationFailed(Exception):
    """The engine met a fault of its own with this request; its log has it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next piece of one completion."""

    prompt_index: int
    text: str
    finish: Literal["", "stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Engine:
    """One engine process; make it with `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter, intake_limit_s: float
    ) -> None:
        self._process = process
        self._intake_limit_s = intake_limit_s
        self._unread: set[int] = set()  # numbers of the requests whose prompts the engine has not read yet
        self._alarm: asyncio.TimerHandle | None = None
        self._writer = writer
        self._numbers = iter(range(1, 1 << 62))
        self._loads: dict[int, asyncio.Future[str]] = {}  # number of the order → digest of the template
        self._answers: dict[int, asyncio.Queue[Message | None]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set when the process has ended."""
        self.users: dict[object, frozenset[str]] = {}
        """Who uses it, and which adapters each of them uses."""

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @classmethod
    async def start(cls, settings: EngineSettings) -> "Engine":
        """Starts a process; it takes orders at once and answers when it is ready, some seconds later."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.inference.engine",
                f"--connection={theirs.fileno()}",
                f"--device={settings.device}",
                f"--dtype={settings.dtype}",
                f"--threads={settings.threads}",
                f"--max-rows={settings.max_rows}",
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # the service's own stdout says where it listens, and nothing else
                env=_environment(),
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        engine = cls(process, writer, settings.intake_limit_s)
        engine._listener = asyncio.create_task(engine._listen(reader), name=f"engine-{process.pid}")
        return engine

    async def load(self, layers: Sequence[Message]) -> str:
        """Loads a base, unless it is loaded, and adapters above it; returns the SHA-256 of the chat template.

        Raises:
            LoadRefused: the files are not what they must be.
            EngineLost: the process ended.
        """
        number = next(self._numbers)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loads[number] = answer
        try:
            self._send({"op": "load", "id": number, "layers": list(layers)})
            return await answer
        finally:
            del self._loads[number]

    def unload(self, adapters: Iterable[str]) -> None:
        """Gives up adapters, once what was ordered before is done."""
        digests = sorted(adapters)
        if digests and not self.lost.is_set():
            self._send({"op": "unload", "adapters": digests})

    async def generate(self, request: Message, deadline: float | None) -> AsyncGenerator[Piece, None]:
        """Completes prompts and yields pieces; leaving the iteration cancels the rest at the next token.

        Args:
            request: fields of the engine's order `generate`, without `op` and `id`.
            deadline: the loop's time at which to stop waiting; None waits for ever.

        Raises:
            PromptsRefused, ComputationFailed, EngineLost, TimeoutError.
        """
        number = next(self._numbers)
        queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._answers[number] = queue
        left = len(request["prompts"])
        try:
            self._send({"op": "generate", "id": number, **request})
            self._unread.add(number)
            if self._alarm is None:
                self._set_alarm()
            while left:
                async with asyncio.timeout_at(deadline):
                    answer = await queue.get()
                if answer is None:
                    raise EngineLost
                piece = _read_answer(answer)
                yield piece
                left -= piece.finish != ""
        finally:
            del self._answers[number]
            if left and not self.lost.is_set():
                self._send({"op": "cancel", "id": number})

    async def stop(self) -> None:
        """Ends the process, and waits until it has ended."""
        self._writer.close()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def _send(self, message: Message) -> None:
        if self.lost.is_set():
            raise EngineLost
        self._writer.write(pack(message))

    def _set_alarm(self) -> None:
        """Gives the engine its time for the next unread request; requests are read one after the other."""
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(self._intake_limit_s, self._end_hanging) if self._unread else None

    def _end_hanging(self) -> None:
        _log.error("an engine does not read requests and is ended", pid=self.pid, limit_s=self._intake_limit_s)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while (message := await read(reader)) is not None:
                self._hand_out(message)
        finally:
            self.lost.set()
            self._unread.clear()
            self._set_alarm()
            for load in self._loads.values():
                if not load.done():
                    load.set_exception(EngineLost())
            for queue in self._answers.values():
                queue.put_nowait(None)
            self._writer.close()
        code = await self._process.wait()
        _log.warning("an engine ended", pid=self.pid, exit_code=code)

    def _hand_out(self, message: Message) -> None:
        operation = message["op"]
        if operation in {"accepted", "refused", "failed"} and message["id"] in self._unread:
            self._unread.discard(message["id"])
            self._set_alarm()
        if operation == "pieces":
            for fields in message["pieces"]:
                if (queue := self._answers.get(fields[0])) is not None:
                    queue.put_nowait({"op": "piece", "fields": fields})
        elif operation in {"refused", "failed"}:
            if (queue := self._answers.get(message["id"])) is not None:
                queue.put_nowait(message)
        elif operation != "accepted" and (load := self._loads.get(message["id"])) is not None and not load.done():
            if operation == "loaded":
                load.set_result(message["template_sha256"])
            else:
                load.set_exception(LoadRefused(_unloadable(message)))


class EnginePool:
    """The running engines, one for each base that is served."""

    def __init__(self, start: Callable[[], Any]) -> None:
        """Takes what starts an engine: an async function without arguments."""
        self._start = start
        self._engines: dict[str, Engine] = {}
        self._starting = asyncio.Lock()

    async def engine(self, base: str, user: object, adapters: Iterable[str]) -> Engine:
        """Returns the engine of a base, starting one where none runs, and notes who uses it.

        Args:
            base: digest of the base's manifest.
            user: who uses it, until `release`.
            adapters: digests of the adapters that the user needs.
        """
        async with self._starting:
            engine = self._engines.get(base)
            if engine is None or engine.lost.is_set():
                engine = self._engines[base] = await self._start()
            engine.users[user] = frozenset(adapters)
            return engine

    async def release(self, base: str, user: object) -> None:
        """Notes that a user is gone: gives up adapters that nobody uses, and ends an engine without users."""
        async with self._starting:
            engine = self._engines.get(base)
            if engine is None or user not in engine.users:
                return
            adapters = engine.users.pop(user)
            if engine.users:
                engine.unload(adapters - frozenset().union(*engine.users.values()))
                return
            del self._engines[base]
        await engine.stop()

    async def close(self) -> None:
        """Ends all engines."""
        async with self._starting:
            engines, self._engines = list(self._engines.values()), {}
        await asyncio.gather(*(engine.stop() for engine in engines))


def _environment() -> dict[str, str]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _read_answer(answer: Message) -> Piece:
    if answer["op"] == "refused":
        raise PromptsRefused([FieldViolation(field, text) for field, text in answer["violations"]])
    if answer["op"] == "failed":
        raise ComputationFailed(answer["message"])
    _, index, text, finish, prompt_tokens, completion_tokens = answer["fields"]
    return Piece(
        prompt_index=index,
        text=text,
        finish=finish,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _unloadable(message: Message) -> Unloadable:
    return Unloadable(
        reason=message["reason"],
        message=message["message"],
        cure=message["cure"],
        damaged_digest=message["damaged_digest"],
        file=message["file"],
    )
