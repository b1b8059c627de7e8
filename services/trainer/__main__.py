"""`python -m services.trainer`: one node."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from importlib.metadata import PackageNotFoundError, version

from services.grpckit.folder_lock import FolderLock
from services.grpckit.server import ServiceDefinition, run, serve
from services.trainer import metrics
from services.trainer.agent import Agent
from services.trainer.folders import DataFolder
from services.trainer.launching import PRELOAD, PRELOAD_BESIDE_ACCELERATORS, WorkerLauncher
from services.trainer.node import measure_capacity
from services.trainer.peers import SchedulerPeer
from services.trainer.policy import POLICIES
from services.trainer.registration import Registrar
from services.trainer.servicer import TrainerServicer
from services.trainer.settings import TrainerSettings
from tuneforge.v1 import trainer_pb2, trainer_pb2_grpc

_PR_SET_CHILD_SUBREAPER = 36


class Node:
    """A trainer from its settings: agent, launcher and registration behind one servicer."""

    def __init__(self, settings: TrainerSettings, launcher: WorkerLauncher | None = None) -> None:
        """Wires a node.

        Args:
            settings: Its settings.
            launcher: Starts its workers; `None` makes the usual one.
        """
        self._settings = settings
        capacity = measure_capacity(settings.slots, settings.cpu_millis)
        preload = PRELOAD_BESIDE_ACCELERATORS if capacity.devices else PRELOAD
        self._launcher = launcher or WorkerLauncher(settings.server.data / "forkserver.log", preload=preload)
        self._lock = FolderLock(settings.server.data)
        self._registrar: Registrar | None = None
        self._measuring: asyncio.Task[None] | None = None
        self.agent = Agent(settings, capacity, self._launcher, _version())

    def definition(self) -> ServiceDefinition:
        """Returns the node as a service."""
        return ServiceDefinition(
            descriptor=trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"],
            add_to_server=trainer_pb2_grpc.add_TrainerServiceServicer_to_server,
            servicer=TrainerServicer(self.agent),
            policies=POLICIES,
            start=self._start,
            listening=self._listening,
            drain=self._drain,
            close=self._close,
        )

    async def _start(self) -> None:
        self._lock.acquire()
        metrics.show(self.agent, self._launcher)
        await self.agent.start()
        self._measuring = asyncio.create_task(
            metrics.measure_cache(DataFolder(self._settings.server.data)), name="cache-size"
        )

    async def _listening(self, address: str) -> None:
        self.agent.address = self._settings.advertise or address
        # Only now: importing torch takes seconds of processor time, which the start of the suite must not wait for.
        self._launcher.start()
        if self._settings.is_managed:
            peer = SchedulerPeer(self._settings.schedulers, self._settings.server.peers)
            self._registrar = Registrar(self.agent, peer)
            self._registrar.start()

    async def _drain(self) -> None:
        draining = asyncio.create_task(self.agent.drain())
        await asyncio.sleep(0)
        if self._registrar is not None:
            self._registrar.tell()
        await draining

    async def _close(self) -> None:
        if self._registrar is not None:
            await self._registrar.close()
        if self._measuring is not None:
            self._measuring.cancel()
        await self.agent.close()
        self._lock.release()


def become_subreaper() -> None:
    """Makes workers whose fork server has died our children, so that we can collect them; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _version() -> str:
    try:
        return version("tuneforge")
    except PackageNotFoundError:
        return ""


async def main() -> int:
    """Serves one node; returns the exit code."""
    settings = TrainerSettings.from_env()
    become_subreaper()
    return await serve(Node(settings).definition(), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="trainer"))
