"""The registry as a process that a test can kill and start again at the same address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from services.registry.signing.keys import KEY_FILE, Signer
from services.stores.ports import free_ports
from tests.support.postgres import environment_of


class RegistryProcess:
    """One registry over a data folder; not started by itself."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._process: subprocess.Popen[str] | None = None

    @property
    def signer(self) -> Signer:
        """Signs as it does: with the key in its data folder, which is made when it is not there yet."""
        return Signer(self._data / "registry" / KEY_FILE, may_make=True)

    def start(self) -> None:
        """Starts it and returns when it takes calls."""
        settings = {
            "TUNEFORGE_DATA": str(self._data),
            "TUNEFORGE_REGISTRY_LISTEN": self.address,
            "TUNEFORGE_REGISTRY_METRICS_LISTEN": "",
            **environment_of("registry", self._data / "registry"),
        }
        self._data.mkdir(parents=True, exist_ok=True)
        with (self._data / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.registry"],
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout
        assert self._process.stdout.readline(), (self._data / "registry.log").read_text()

    def kill(self) -> None:
        """Ends it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
