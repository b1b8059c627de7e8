"""Starts, watches and stops the four services as separate processes on loopback, over one data folder.

Used by `python -m services`, by the demo, the benchmarks and the fault tests. It knows the services by their module
names and their environment only. It does not restart a service that dies: it says which one and why, and stops.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.grpckit.parent import END_WITH_PARENT
from services.stores.ports import METRICS_OFFSET
from services.stores.real import RealStores

SERVICES = ("registry", "scheduler", "trainer", "inference")
# The trainer goes first, so that its workers save their checkpoints while the others still answer.
STOP_ORDER = ("trainer", "inference", "scheduler", "registry")
DEFAULT_PORTS: Mapping[str, int] = {"registry": 7101, "scheduler": 7102, "trainer": 7103, "inference": 7104}
START_TIMEOUT_S = 180.0
"""How long services may take to be ready: four that import at once share what processors there are. One that ends is
noticed at once."""
STOP_TIMEOUT_S = 60.0
_POLL_S = 0.02


class StartFailed(Exception):
    """A service ended before it was ready."""

    def __init__(self, service: str, exit_code: int, last_lines: str) -> None:
        """Keeps which service ended, how, and what it said last."""
        super().__init__(f"the {service} ended with exit code {exit_code} before it was ready:\n{last_lines}")
        self.service = service
        self.exit_code = exit_code


@dataclass(slots=True)
class Suite:
    """The four services of one data folder.

    Not safe for use from several threads. `start` them all or one by one, `kill` and `start` again in fault tests.
    """

    data: Path
    """Root data folder; each service uses the folder of its name below it."""
    ports: Mapping[str, int] = field(default_factory=lambda: DEFAULT_PORTS)
    """gRPC port by service; the metrics port is 10 higher, none with `metrics=False`."""
    metrics: bool = True
    """Whether the services offer `/metrics`."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """Settings on top of the environment."""
    stores: RealStores | None = None
    """Servers for the services' data, which start before them and end after them; None: everything in the folder."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Running services by name."""
    _log_offsets: dict[str, int] = field(default_factory=dict)

    def address(self, service: str) -> str:
        """Returns `host:port` of a service."""
        return f"127.0.0.1:{self.ports[service]}"

    def log_path(self, service: str) -> Path:
        """Returns the file that a service logs to."""
        return self.data / "logs" / f"{service}.log"

    def start(self, *services: str) -> None:
        """Starts services (all four when none is named) and returns when each says that it is ready.

        Raises:
            StartFailed: One ended first; the others that were started here are stopped.
            StoreFailed: A server of the stores did not start; the same.
        """
        wanted = services or SERVICES
        try:
            if self.stores is not None:
                self.stores.start()
            give_up_at = time.monotonic() + START_TIMEOUT_S
            for service in wanted:
                self._spawn(service)
            for service in wanted:
                while not self._is_ready(service):
                    if self.processes[service].poll() is not None or time.monotonic() > give_up_at:
                        raise self._start_failed(service)
                    time.sleep(_POLL_S)
        except BaseException:
            self.stop(*services)
            raise

    def stop(self, *services: str) -> None:
        """Asks services to end, in the order that loses nothing, and waits for them.

        Without a name: all, and then the stores.
        """
        for service in STOP_ORDER:
            if services and service not in services:
                continue
            process = self.processes.pop(service, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.stores is not None and not services:
            self.stores.stop()

    def kill(self, service: str) -> None:
        """Ends a service at once, as a crash would."""
        process = self.processes.pop(service)
        process.kill()
        process.wait()

    def first_exit(self) -> tuple[str, int] | None:
        """Returns the name and exit code of a service, or of a server of its data, that has ended by itself, if any."""
        for service, process in self.processes.items():
            code = process.poll()
            if code is not None:
                return service, code
        return self.stores.first_exit() if self.stores is not None else None

    def last_words(self, service: str, count: int = 5) -> str:
        """Returns what a service said for people since its start, else the end of its log."""
        try:
            with self.log_path(service).open("rb") as log:
                log.seek(self._log_offsets.get(service, 0))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        spoken = [line for line in lines if line and not line.startswith("{")]
        return "\n".join((spoken or lines)[-count:])

    def end_workers(self) -> None:
        """After the trainer has died by itself: starts it once more, so that it adopts its workers and can end them."""
        self.processes.pop("trainer", None)
        self.start("trainer")
        self.stop("trainer")

    def environment(self, service: str) -> dict[str, str]:
        """Returns the environment that a service is started with."""
        name = service.upper()
        env = dict(os.environ)
        for peer in SERVICES:
            env[f"TUNEFORGE_{peer.upper()}_ADDRESS"] = self.address(peer)
        env["TUNEFORGE_DATA"] = str(self.data)
        env[END_WITH_PARENT] = str(os.getpid())
        env[f"TUNEFORGE_{name}_LISTEN"] = self.address(service)
        port = self.ports[service] + METRICS_OFFSET
        env[f"TUNEFORGE_{name}_METRICS_LISTEN"] = f"127.0.0.1:{port}" if self.metrics else ""
        if self.stores is not None:
            env |= self.stores.environment()
        return env | dict(self.extra_env)

    def _spawn(self, service: str) -> None:
        self.log_path(service).parent.mkdir(parents=True, exist_ok=True)
        # Files and no pipes: a launcher without threads of its own can be killed and its services hear of it once.
        with self.log_path(service).open("ab") as log, self._ready_path(service).open("wb") as ready:
            self._log_offsets[service] = log.tell()
            self.processes[service] = subprocess.Popen(
                [sys.executable, "-m", f"services.{service}"],
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=ready,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop them in order
            )

    def _ready_path(self, service: str) -> Path:
        return self.data / "logs" / f"{service}.ready"

    def _is_ready(self, service: str) -> bool:
        return self._ready_path(service).read_bytes().endswith(b"\n")

    def _start_failed(self, service: str) -> StartFailed:
        process = self.processes[service]
        if process.poll() is None:
            process.kill()
        return StartFailed(service, process.wait(), self.last_words(service))


def wait_for_end(suite: Suite, stopping: threading.Event, poll_s: float = 0.2) -> tuple[str, int] | None:
    """Blocks until `stopping` is set (returns None) or a service ends by itself (returns its name and exit code)."""
    while not stopping.wait(poll_s):
        ended = suite.first_exit()
        if ended is not None:
            return ended
    return None
