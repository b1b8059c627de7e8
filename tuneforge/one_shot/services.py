"""The four services for as long as one run lasts: a child process, which ends them with itself."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SERVICES: Final = ("registry", "scheduler", "trainer", "inference")
EXIT_IN_USE: Final = 78
MISSING: Final = (
    "the services are not installed here: the package has the client only.\n"
    "Run from a checkout of Tuneforge (`make setup`, then `.venv/bin/tuneforge train ...`), or start the services "
    "elsewhere and give --attach with their addresses."
)
_ADDRESS = re.compile(rf"({'|'.join(SERVICES)})\s+(\S+:\d+)\s")
_READY: Final = "Ctrl-C stops everything"
_STOP_TIMEOUT_S: Final = 150.0
_END_WITH_PARENT: Final = "TUNEFORGE_END_WITH_PARENT"


class ServicesFailed(Exception):
    """The services did not start, or ended; the text says why."""


def are_installed() -> bool:
    """Returns whether the services can be started on this machine."""
    found = importlib.util.find_spec("services")
    places = found.submodule_search_locations if found is not None else None
    return any(Path(place, "launcher.py").is_file() for place in places or ())


class EmbeddedServices:
    """The services over one data folder, on free ports; use it with `with`."""

    def __init__(self, data: Path) -> None:
        """Takes the data folder; nothing is started yet."""
        self._data = data
        self._process: subprocess.Popen[str] | None = None
        self._addresses: dict[str, str] = {}

    @property
    def addresses(self) -> Mapping[str, str]:
        """Service -> `host:port`."""
        return self._addresses

    @property
    def log(self) -> Path:
        """What the launcher says when something goes wrong."""
        return self._data / "launcher.log"

    def __enter__(self) -> Self:
        self._data.mkdir(parents=True, exist_ok=True)
        with self.log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "--data", str(self._data), "--port", "0"],
                env={**os.environ, _END_WITH_PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is ours: it ends them in order
            )
        try:
            self._read_addresses(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Looks whether they live.

        Raises:
            ServicesFailed: They have ended by themselves.
        """
        if self._process is not None and self._process.poll() is not None:
            raise ServicesFailed(f"the services have ended:\n{self._last_words()}")

    def stop(self) -> None:
        """Ends them: a job that runs saves a checkpoint first, and goes on at the next start."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # its children end with it
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _read_addresses(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if found := _ADDRESS.match(line):
                self._addresses[found.group(1)] = found.group(2)
            if _READY in line:
                return
        if process.wait() == EXIT_IN_USE and "folder" in self._last_words():
            raise ServicesFailed(f"another run uses {self._data}; wait for its end, or choose another output folder")
        raise ServicesFailed(f"the services did not start:\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
