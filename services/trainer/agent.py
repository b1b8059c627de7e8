"""The node agent: which attempts this node holds, and what may be done to them.

Runs in one event loop and does no work itself: workers train, `supervision.py` follows them. Everything that must
survive a `kill -9` of this process is in the data folder before an answer is given; `start` picks it up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import shutil
import signal
import time
from pathlib import Path

from services.grpckit import context
from services.grpckit.errors import Reason, ServiceError, not_found
from services.grpckit.logging import get_logger
from services.trainer import admission, adoption, cgroups
from services.trainer.admission import LocalInputs, StartRequest
from services.trainer.attempts import Attempt, AttemptObserver, AttemptView
from services.trainer.folders import AttemptFolder, DataFolder, make_folder, read_json, write_durably, write_json
from services.trainer.launching import WorkerLauncher
from services.trainer.node import Capacity, NodeView
from services.trainer.node_cache import cached_bytes, limit_from
from services.trainer.orders import Assignment, StopMode, StopOrder
from services.trainer.settings import TrainerSettings
from services.trainer.spool import drop_acknowledged
from services.trainer.supervision import supervise
from services.trainer.watching import out_of_range
from tuneforge.names import AttemptName, NodeName
from tuneforge.specs.guards import STALL_AFTER_S, STALL_ENDS_AFTER_S, with_guard_defaults

_KILL_MARGIN_S = 10.0
_TAKE_UP_AGAIN_S = 5.0

_log = get_logger(__name__)

AttemptId = tuple[str, int]
"""Name and rank of an attempt's part."""


class Agent:
    """The attempts of one node. `start` it, `drain` it, `close` it."""

    def __init__(self, settings: TrainerSettings, capacity: Capacity, launcher: WorkerLauncher, version: str) -> None:
        self._settings = settings
        self._capacity = capacity
        self._launcher = launcher
        self._version = version
        self._data = DataFolder(settings.server.data)
        self._attempts: dict[AttemptId, Attempt] = {}
        self._tasks: dict[AttemptId, asyncio.Task[None]] = {}
        self._starting = asyncio.Lock()
        self._is_draining = False
        self._generation = secrets.token_hex(8)
        self._manager_token = ""
        self.cache_bytes = settings.cache_bytes
        """Most bytes of models and rows that the node keeps; set once it has started."""
        self.address = settings.advertise
        """`host:port` at which others reach this node; set once it listens."""
        self.observer: AttemptObserver | None = None
        """Told of every event of the node's attempts; set it before `start`."""

    @property
    def settings(self) -> TrainerSettings:
        """The node's settings."""
        return self._settings

    async def start(self) -> None:
        """Takes up the attempts of the data folder: adopts living workers, and ends what has died meanwhile."""
        await asyncio.to_thread(self._data.make)
        self.cache_bytes = await asyncio.to_thread(self._cache_limit)
        for folder in await asyncio.to_thread(self._data.attempts):
            attempt = await asyncio.to_thread(self._take_up, folder)
            if attempt is None:
                continue
            await attempt.catch_up()
            self._attempts[attempt.id] = attempt
            if attempt.end is None:
                self._supervise(attempt)

    def node(self) -> NodeView:
        """Returns the node as it is now."""
        return NodeView(
            name=str(NodeName(self._settings.node_id)),
            address=self.address,
            capacity=self._capacity,
            labels=self._settings.labels,
            is_managed=self._settings.is_managed,
            is_draining=self._is_draining,
            attempts=tuple(attempt.view() for attempt in self._attempts.values()),
            generation=self._generation,
            version=self._version,
        )

    def trust(self, manager_token: str) -> None:
        """Takes starts from now on from whoever knows this secret."""
        self._manager_token = manager_token

    async def start_attempt(self, request: StartRequest) -> AttemptView:
        """Accepts an attempt, or returns the one that was accepted before.

        Raises:
            ServiceError: NODE_MANAGED, DRAINING, INVALID_FIELD, LOCAL_PATH_REFUSED, STALE_ATTEMPT or NODE_FULL.
        """
        settings = self._settings
        if settings.is_managed and not (
            self._manager_token and hmac.compare_digest(request.manager_token.encode(), self._manager_token.encode())
        ):
            scheduler = ",".join(settings.schedulers)
            raise ServiceError(
                Reason.NODE_MANAGED,
                f"nodes/{settings.node_id} is managed by the scheduler at {scheduler}, which alone starts "
                "attempts on it",
                metadata={"node": settings.node_id, "scheduler": scheduler},
            )
        # A caller that goes away must not leave an attempt that is on disk and not known here.
        return await asyncio.shield(self._accept(request))

    async def _accept(self, request: StartRequest) -> AttemptView:
        settings = self._settings
        async with self._starting:  # one at a time, so that a repeated call meets the first one's attempt
            if self._is_draining:
                raise ServiceError(Reason.DRAINING, f"nodes/{settings.node_id} is shutting down")
            known = await self._known(request)
            if known is not None:
                return known
            admission.check(request, is_managed=settings.is_managed, num_devices=len(self._capacity.devices))
            local = await asyncio.to_thread(
                admission.resolve_local, request, inputs=settings.inputs, is_managed=settings.is_managed
            )
            older = self._older_of(request, await asyncio.to_thread(self._acknowledged, request))
            assignment = self._assign(request, local, older)
            attempt = await asyncio.to_thread(self._write_down, request, assignment)
            for each in older:
                # Fenced: it must not write the job's checkpoints any more, and what it would say nobody will take.
                self.stop_attempt(each, StopMode.CANCEL, 0.0)
            self._attempts[attempt.id] = attempt
            self._supervise(attempt, after=[self._tasks[each.id] for each in older if each.id in self._tasks])
        _log.info("attempt accepted", attempt=str(request.name), node_rank=request.node_rank)
        return attempt.view()

    def stop_attempt(self, attempt: Attempt, mode: StopMode, grace_s: float) -> AttemptView:
        """Asks an attempt to stop, and sees to it that it has stopped after the grace time."""
        if attempt.end is None:
            order = StopOrder(mode=mode, kill_at=time.time() + grace_s)
            if attempt.stop_order is not None:
                order = attempt.stop_order.merged(order)
            order.write(attempt.folder.stop)
            attempt.stop_order = order
            if attempt.worker is not None:
                adoption.signal_worker(attempt.worker, signal.SIGTERM)
            attempt.call_attention()
            attempt.tell()
        return attempt.view()

    async def acknowledge(self, attempt: Attempt, seq: int, *, is_final: bool) -> AttemptView:
        """Drops events that are kept elsewhere; with the end acknowledged, the attempt too.

        Raises:
            ServiceError: CURSOR_OUT_OF_RANGE: there is no such event yet.
        """
        attempt.refresh_unless_ended()
        if seq > attempt.last_seq:
            raise out_of_range(attempt, f"event {seq} is not there yet")
        attempt.acked_seq = max(attempt.acked_seq, seq)
        await asyncio.to_thread(drop_acknowledged, attempt.folder.spool, attempt.acked_seq)
        view = attempt.view()
        if is_final and attempt.end is not None and attempt.acked_seq == attempt.last_seq:
            await asyncio.to_thread(self._forget, attempt, view)
            self._attempts.pop(attempt.id, None)
        return view

    def attempt(self, name: AttemptName, node_rank: int) -> Attempt:
        """Returns an attempt of this node.

        Raises:
            ServiceError: NOT_FOUND: the node does not hold it.
        """
        attempt = self._attempts.get((str(name), node_rank))
        if attempt is None:
            raise not_found("attempt on this node", name)
        return attempt

    async def settled(self, name: AttemptName, node_rank: int) -> Attempt:
        """Returns an attempt of this node; one that is being started is waited for.

        Raises:
            ServiceError: NOT_FOUND: the node does not hold it, and no start that came before would change that.
        """
        if (str(name), node_rank) not in self._attempts:
            async with self._starting:  # starts take it in the order in which they came
                pass
        return self.attempt(name, node_rank)

    def check_token(self, attempt: Attempt, token: str) -> None:
        """Refuses a caller with another fencing token.

        Raises:
            ServiceError: STALE_ATTEMPT.
        """
        if self._is_other_token(attempt.assignment.token, token):
            raise _stale(attempt.assignment.name)

    async def forgotten(self, name: AttemptName, node_rank: int, token: str) -> AttemptView | None:
        """Returns an attempt as it was when its end was acknowledged; `None` when there is no such.

        Raises:
            ServiceError: STALE_ATTEMPT.
        """
        path = self._data.ended(name.project, name.job, f"{name.attempt}-{node_rank}")
        left = await asyncio.to_thread(read_json, path)
        if left is None:
            return None
        if self._is_other_token(left["token"], token):
            raise _stale(name)
        return AttemptView.from_json(left["view"])

    async def drain(self) -> None:
        """Takes no more work, lets every worker save its state, and returns when all have ended."""
        async with self._starting:  # what is being accepted is drained too
            self._is_draining = True
        grace_s = self._settings.drain_grace_s
        for attempt in list(self._attempts.values()):
            self.stop_attempt(attempt, StopMode.CHECKPOINT, grace_s)
        tasks = list(self._tasks.values())
        if tasks:
            _log.info("workers are saving their state", workers=len(tasks), grace_s=grace_s)
            await asyncio.wait(tasks, timeout=grace_s + _KILL_MARGIN_S)

    async def close(self) -> None:
        """Lets go of the attempts; living workers live on."""
        for task in list(self._tasks.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._launcher.close()

    async def _known(self, request: StartRequest) -> AttemptView | None:
        """Returns the attempt of a repeated start."""
        attempt = self._attempts.get((str(request.name), request.node_rank))
        if attempt is None:
            return await self.forgotten(request.name, request.node_rank, request.token)
        self.check_token(attempt, request.token)
        return attempt.view()

    def _is_other_token(self, ours: str, theirs: str) -> bool:
        if not theirs and not self._settings.is_managed:
            return False
        return not hmac.compare_digest(ours.encode(), theirs.encode())

    def _acknowledged(self, request: StartRequest) -> list[int]:
        """Returns the numbers of the job's attempts here whose end was acknowledged, whatever rank this node had."""
        folder = self._data.ended(request.name.project, request.name.job, "").parent
        return [int(path.stem.partition("-")[0]) for path in folder.glob("*-*.json")]

    def _older_of(self, request: StartRequest, numbers: list[int]) -> list[Attempt]:
        """Returns the living attempts of the same job that the new one replaces.

        Raises:
            ServiceError: STALE_ATTEMPT: the job has a newer attempt here.
        """
        name = request.name
        living = []
        for attempt in self._attempts.values():
            other = attempt.assignment.name
            if other.parent == name.parent:
                numbers.append(other.attempt)
                if attempt.end is None and other.attempt < name.attempt:
                    living.append(attempt)
        if max(numbers, default=0) > name.attempt:
            raise _stale(name, f"; this node knows attempt {max(numbers)}")
        return living

    def _assign(self, request: StartRequest, local: LocalInputs, older: list[Attempt]) -> Assignment:
        """Decides what the attempt gets.

        Raises:
            ServiceError: NODE_FULL.
        """
        taken = {each.assignment.slot for each in self._attempts.values() if each.end is None and each not in older}
        slot = next((index for index in range(self._capacity.slots) if index not in taken), None)
        if slot is None:
            raise ServiceError(
                Reason.NODE_FULL,
                f"nodes/{self._settings.node_id} runs {len(taken)} attempts, as many as it has slots",
                metadata={"slots": str(self._capacity.slots)},
            )
        name, resources = request.name, request.spec.resources
        guards = with_guard_defaults(request.spec.guards)
        key = f"{name.attempt}-{request.node_rank}"
        is_kept = not self._settings.is_managed
        result = self._data.result(name.project, name.job, name.attempt)
        return Assignment(
            name=name,
            node_rank=request.node_rank,
            token=request.token,
            accepted_at=time.time(),
            slot=slot,
            device_index=self._capacity.device_of(slot, resources),
            threads=self._capacity.threads_for(resources),
            base=str(local.base) if local.base else None,
            train=str(local.train) if local.train else None,
            validation=str(local.validation) if local.validation else None,
            checkpoints=str(self._data.checkpoints(name.project, name.job)),
            output=str(result if is_kept else self._data.attempt(name.project, name.job, key).output),
            is_kept=is_kept,
            world_size=request.world_size,
            rendezvous=request.rendezvous,
            host=self.address.rpartition(":")[0].strip("[]"),
            cache=str(self._data.cache),
            cache_bytes=self.cache_bytes,
            registry=self._settings.registry,
            spool_bytes=self._settings.spool_bytes,
            tokens=str(self._data.tokens),
            tokens_bytes=self._settings.tokens_bytes,
            oom_kills=cgroups.count_oom_kills(),
            cpu_millis=resources.cpu_millis,
            memory_bytes=resources.memory_bytes,
            stall_after_s=guards.stall_after_s or STALL_AFTER_S,
            stall_ends_after_s=guards.stall_ends_after_s or STALL_ENDS_AFTER_S,
        )

    def _cache_limit(self) -> int:
        """Returns how many bytes of models and rows the node may keep."""
        free = shutil.disk_usage(self._data.cache).free
        return self._settings.cache_bytes or limit_from(free, cached_bytes(self._data.cache))

    def _take_up(self, folder: AttemptFolder) -> Attempt | None:
        """Reads an attempt that an earlier start of this node has left; `None` when it was on its way out."""
        try:
            assignment = Assignment.read(folder.assignment)
            name = assignment.name
            if not self._data.ended(name.project, name.job, assignment.key).exists():
                return Attempt(folder, assignment, self.observer)
        except FileNotFoundError:  # never accepted, or half removed
            pass
        except (ValueError, KeyError, TypeError):
            _log.exception("an attempt's folder is damaged and left alone", folder=str(folder.path))
            return None
        _remove(folder)
        return None

    def _write_down(self, request: StartRequest, assignment: Assignment) -> Attempt:
        name = request.name
        folder = self._data.attempt(name.project, name.job, assignment.key)
        # What a start that was never answered may have left.
        shutil.rmtree(folder.path, ignore_errors=True)
        make_folder(folder.path)
        make_folder(Path(assignment.checkpoints))
        write_durably(folder.request, request.content)
        assignment.write(folder.assignment)
        return Attempt(folder, assignment, self.observer)

    def _forget(self, attempt: Attempt, view: AttemptView) -> None:
        """Removes an attempt's folder and keeps what answers a repeated call."""
        name = attempt.assignment.name
        path = self._data.ended(name.project, name.job, attempt.assignment.key)
        make_folder(path.parent)
        write_json(path, {"token": attempt.assignment.token, "view": view.to_json()})
        _remove(attempt.folder)

    def _supervise(self, attempt: Attempt, *, after: list[asyncio.Task[None]] | None = None) -> None:
        task = asyncio.create_task(self._run(attempt, after or []), name=f"supervise {attempt.id}")
        self._tasks[attempt.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(attempt.id, None))

    async def _run(self, attempt: Attempt, after: list[asyncio.Task[None]]) -> None:
        # A task of its own: the call that began it, and its deadline, are long over when it ends.
        with context.background("trainer.supervision"):
            if after:
                await asyncio.wait(after)
            while attempt.end is None:
                try:
                    await supervise(attempt, self._launcher)
                except Exception:  # noqa: BLE001 - one attempt (a full disk, say) must not take the others with it
                    _log.exception("following an attempt failed; it is taken up again", attempt=attempt.id[0])
                    await asyncio.sleep(_TAKE_UP_AGAIN_S)


def _remove(folder: AttemptFolder) -> None:
    # The assignment goes first: without it a folder that is only half removed is no attempt.
    folder.assignment.unlink(missing_ok=True)
    shutil.rmtree(folder.path, ignore_errors=True)


def _stale(name: AttemptName, more: str = "") -> ServiceError:
    return ServiceError(
        Reason.STALE_ATTEMPT,
        f"{name} is not the newest{more}" if more else f"{name} was started here with another token",
        metadata={"attempt": str(name)},
    )
