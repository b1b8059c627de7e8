"""Keeps a warm fork server and asks it for workers; the agent's side of `forkserver.py`.

A fork server that dies is started again; requests wait meanwhile. A request is safe to repeat: the second worker of an
attempt finds the first one's identity file and ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import services
from services.grpckit.logging import get_logger
from services.trainer.forkserver import PACKET_BYTES

PRELOAD = "services.trainer.worker:preload"
PRELOAD_BESIDE_ACCELERATORS = "services.trainer.worker:preload_nothing"
JOB = "services.trainer.worker:run"
STARTS_BEFORE_FAILING = 3
"""Starts in a row that may fail before a waiting attempt is told."""
_STOP_TIMEOUT_S = 5.0
_REPORT_TIMEOUT_S = 10.0
"""How long the fork server's word of a worker's end is waited for: it comes at once, except where memory runs out."""
_LOG_BYTES = 1024 * 1024
_LIBRARY_SETTINGS = {
    # numpy's OpenBLAS starts its threads when it is imported, and a process with threads cannot be forked safely. Torch
    # has a library of its own, whose threads each worker starts itself.
    "OPENBLAS_NUM_THREADS": "1",
    # How long torch's threads spin for work before they sleep. The default (300,000 turns) burns the cores that others
    # need, sleeping at once (OMP_WAIT_POLICY=PASSIVE) halves the speed of idle cores. Measured with SmolLM2 and LoRA on
    # 2 cores, tokens a second idle / beside two busy loops: default 609 / 166, 3000 turns 728 / 199, PASSIVE 375 / 424.
    "GOMP_SPINCOUNT": "3000",
}

_log = get_logger(__name__)


class LaunchFailed(Exception):
    """No worker can be started; the text says why."""


@dataclass(frozen=True, slots=True)
class _Request:
    folder: Path
    pid: asyncio.Future[int]


class WorkerLauncher:
    """Owns the fork server. Belongs to one event loop; `start` it, and `close` it in the end."""

    def __init__(self, log_path: Path, *, preload: str = PRELOAD, job: str = JOB) -> None:
        """Prepares.

        Args:
            log_path: File for what the fork server and its libraries print.
            preload: `module:function` that imports what workers need.
            job: `module:function` that a worker runs with the folder of its attempt.
        """
        self._log_path = log_path
        self._command = [sys.executable, "-m", "services.trainer.forkserver"]
        self._places = [preload, job]
        self._requests: dict[int, _Request] = {}
        self._ids = itertools.count(1)
        self._ends: dict[int, asyncio.Future[int | None]] = {}
        self._warm = asyncio.Event()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """Process id of the fork server, `None` while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def is_warm(self) -> bool:
        """Whether a worker can be forked at once."""
        return self._warm.is_set()

    def start(self) -> None:
        """Begins to keep a fork server; returns before it is warm."""
        self._task = asyncio.create_task(self._keep(), name="fork-server")

    async def launch(self, folder: Path) -> int:
        """Forks a worker for an attempt, as soon as the fork server is warm, and returns its pid.

        Raises:
            LaunchFailed: The fork server cannot be started, or cannot fork.
        """
        number = next(self._ids)
        request = _Request(folder, asyncio.get_running_loop().create_future())
        self._requests[number] = request
        if self._warm.is_set():
            self._send(number, request)
        try:
            return await request.pid
        finally:
            self._requests.pop(number, None)

    async def exit_code(self, pid: int) -> int | None:
        """Returns how a worker that has ended did so (-9: killed by signal 9); `None` when it was not seen."""
        end = self._ends.get(pid)
        if end is None:
            return None
        # The kernel tells us of the end at the same moment as the fork server, whose report takes a little longer.
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(asyncio.shield(end), _REPORT_TIMEOUT_S)
        return None

    async def close(self) -> None:
        """Ends the fork server; workers live on."""
        self._is_closing = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()  # it has nothing to lose, and while it imports it would not notice a polite word
        if self._task is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._task, _STOP_TIMEOUT_S)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()

    async def _keep(self) -> None:
        failed_starts = 0
        while not self._is_closing:
            started_warm = await self._run_once()
            if self._is_closing:
                return
            failed_starts = 0 if started_warm else failed_starts + 1
            _log.error("the fork server has ended", failed_starts=failed_starts, log=self._last_words())
            if failed_starts >= STARTS_BEFORE_FAILING:
                self._fail_all(LaunchFailed(f"the process that starts workers does not start: {self._last_words()}"))
            # At once when it had worked, else ever slower: importing costs seconds of processor time.
            delay_s = min(30.0, 0.5 * 2**failed_starts) if failed_starts else 0.05
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    async def _run_once(self) -> bool:
        """Runs one fork server to its end; returns whether it had become warm."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        _shorten(self._log_path)
        with theirs, self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                str(theirs.fileno()),
                *self._places,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": _import_path()} | _LIBRARY_SETTINGS,
            )
        self._control = ours
        loop = asyncio.get_running_loop()
        was_warm = False
        try:
            while packet := await loop.sock_recv(ours, PACKET_BYTES):
                self._take(json.loads(packet))
                was_warm = was_warm or self._warm.is_set()
        except ConnectionError:
            pass
        finally:
            self._warm.clear()
            for end in self._ends.values():
                if not end.done():
                    end.set_result(None)
            self._control = None
            ours.close()
        await self._end_process()
        return was_warm

    def _take(self, message: dict[str, Any]) -> None:
        request = self._requests.get(message.get("forked", message.get("refused", 0)))
        if "ready" in message:
            _log.info("workers start warm from now on", seconds=round(message["ready"], 2), threads=message["threads"])
            self._warm.set()
            for number, waiting in self._requests.items():
                self._send(number, waiting)
        elif "exited" in message:
            if (end := self._ends.get(message["exited"])) is not None and not end.done():
                end.set_result(message["status"])
        elif request is not None and not request.pid.done():
            if "pid" in message:
                self._ends[message["pid"]] = asyncio.get_running_loop().create_future()
                request.pid.set_result(message["pid"])
            else:
                request.pid.set_exception(LaunchFailed(f"no process can be started: {message['error']}"))

    def _send(self, number: int, request: _Request) -> None:
        if self._control is not None and not request.pid.done():
            # When it has just died, the request is sent again to the next one.
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"fork": number, "folder": str(request.folder)}).encode())

    def _fail_all(self, error: LaunchFailed) -> None:
        for request in self._requests.values():
            if not request.pid.done():
                request.pid.set_exception(error)

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_words(self) -> str:
        try:
            lines = self._log_path.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""


def _import_path() -> str:
    """Returns `PYTHONPATH` for a process that must find the same `services` as this one."""
    root = str(Path(services.__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))


def _shorten(log_path: Path) -> None:
    """Begins a log anew when it has become long."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > _LOG_BYTES:
        log_path.unlink()
