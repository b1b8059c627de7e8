"""Keeps a managed node known to its scheduler: registers, holds the lease, and comes back after every break.

A lost scheduler changes nothing for the attempts: workers train on and their events wait on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator

from services.grpckit import context
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.logging import get_logger
from services.trainer.agent import Agent
from services.trainer.peers import SchedulerPeer

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 5.0

_log = get_logger(__name__)


class Registrar:
    """Registers one node for as long as it runs; `start` it once the node listens, and `close` it."""

    def __init__(self, agent: Agent, peer: SchedulerPeer) -> None:
        self._agent = agent
        self._peer = peer
        self._ticks = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; returns at once, whether the scheduler answers or not."""
        self._task = asyncio.create_task(self._keep(), name="registration")

    def tell(self) -> None:
        """Sends the next heartbeat at once."""
        self._ticks.set()

    async def close(self) -> None:
        """Lets the lease run out."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._peer.close()

    async def _keep(self) -> None:
        delay_s = _FIRST_DELAY_S
        with context.background("trainer.registration"):
            while True:
                try:
                    async for _ in self._hold():
                        delay_s = _FIRST_DELAY_S
                except ServiceError as error:
                    if error.reason is Reason.STALE_ATTEMPT:
                        _log.error("another trainer has registered as this node; this one ends", problem=error.message)
                        os.kill(os.getpid(), signal.SIGTERM)
                        return
                    _log.warning("the scheduler is not there", problem=error.message, retry_s=round(delay_s, 1))
                    if error.code == "UNAVAILABLE":
                        self._peer.move_on()
                except Exception:  # noqa: BLE001 - a node that nobody knows any more gets no work for ever
                    _log.error("keeping the node known failed; it registers again", exc_info=True)
                # Jitter: after a restart of the scheduler its nodes must not come back all at once.
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                delay_s = min(delay_s * 2, _MAX_DELAY_S)

    async def _hold(self) -> AsyncIterator[None]:
        """Registers and holds the lease; gives a value for each renewal."""
        registration = await self._peer.register(self._agent.node())
        self._agent.trust(registration.manager_token)
        _log.info("registered", heartbeat_s=registration.heartbeat_interval_s)
        async for renewed in self._peer.heartbeat(self._agent.node, registration.heartbeat_interval_s, self._ticks):
            yield renewed
