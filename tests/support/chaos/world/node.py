"""A simulated node: it holds attempts as a trainer does, and its workers compute a chain that proves every step."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.grpckit.errors import Reason, ServiceError, not_found
from services.scheduler.jobs import LIVE_ATTEMPT, AttemptState, Failure
from services.scheduler.records import Attempt, Checkpoint, Job
from services.scheduler.wire.reports import Status
from tests.support.chaos.world.script import STEP_S, STEPS, Script
from tuneforge.v1 import events_pb2, nodes_pb2, types_pb2

_RESULTS = {
    AttemptState.SUCCEEDED: events_pb2.ATTEMPT_RESULT_SUCCEEDED,
    AttemptState.FAILED: events_pb2.ATTEMPT_RESULT_FAILED,
    AttemptState.INTERRUPTED: events_pb2.ATTEMPT_RESULT_INTERRUPTED,
    AttemptState.CANCELLED: events_pb2.ATTEMPT_RESULT_CANCELLED,
}


def weights_after(job: str, step: int) -> str:
    """Returns what a run's weights are after a step: the chain of all steps before it."""
    weights = hashlib.sha256(job.encode()).hexdigest()
    for number in range(1, step + 1):
        weights = hashlib.sha256(f"{weights}{number}".encode()).hexdigest()
    return weights


@dataclass(eq=False)
class Held:
    """An attempt on its node."""

    name: str
    job: str
    number: int
    token: int
    rank: int
    nodes: int
    script: Script
    step: int = 0
    weights: str = ""
    state: AttemptState = AttemptState.STARTING
    failure: Failure | None = None
    events: list[events_pb2.Event] = field(default_factory=list)
    stop: str = ""
    """How it was asked to stop: `save` or `cancel`."""
    rendezvous: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether its worker may still compute."""
        return self.state in LIVE_ATTEMPT

    def status(self) -> Status:
        """Returns it as the node tells it."""
        return Status(
            name=self.name,
            node_rank=self.rank,
            state=self.state,
            last_seq=len(self.events),
            failure=self.failure,
            rendezvous=self.rendezvous,
        )

    def add(self, event: events_pb2.Event) -> None:
        """Appends to the spool."""
        event.job, event.attempt, event.node_rank = self.job, self.number, self.rank
        event.seq = len(self.events) + 1
        self.events.append(event)
        self.tell()

    def end(self, state: AttemptState, failure: Failure | None = None) -> None:
        """Ends it; a worker that could still speak leaves its outcome."""
        if state in _RESULTS:
            outcome = events_pb2.AttemptOutcome(result=_RESULTS[state], step=self.step)
            if state is AttemptState.SUCCEEDED and self.rank == 0:
                outcome.manifest.files.add(path="adapter.safetensors", sha256="a" * 64, size_bytes=1)
                outcome.manifest.digest = self.weights
            if failure is not None:
                fault = types_pb2.FAULT_CLASS_USER if failure.is_user_fault else types_pb2.FAULT_CLASS_INFRASTRUCTURE
                outcome.failure.message, outcome.failure.fault = failure.message, fault
            self.add(events_pb2.Event(outcome=outcome))
        self.state, self.failure = state, failure
        self.tell()

    def tell(self) -> None:
        """Wakes whoever watches."""
        self.changed.set()
        self.changed = asyncio.Event()


LOST = Failure(reason="WORKER_LOST", message="Its worker vanished.")
BAD_DATA = Failure(reason="LOSS_NOT_FINITE", message="Its loss is not finite.", is_user_fault=True)


@dataclass(eq=False)
class SimNode:
    """One node; the network in front of it is `network.py`."""

    name: str
    slots: int
    scripts: Callable[[str], Script]
    """What a job's workers do."""
    trace: Callable[[str], None]
    generation: int = 1
    manager_token: str = ""
    held: dict[tuple[str, int], Held] = field(default_factory=dict)
    forgotten: dict[tuple[str, int], Status] = field(default_factory=dict)
    """Attempts whose end was acknowledged, as they were then."""
    newest: dict[str, int] = field(default_factory=dict)
    """Newest attempt that it ever held, by job."""
    saved: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Newest checkpoint on its disk, by job: step and weights."""
    is_up: bool = True
    """Whether its agent answers."""
    running: asyncio.Event = field(default_factory=asyncio.Event)
    """Clear while the whole machine stands still."""
    lies: set[str] = field(default_factory=set)
    """Attempts that it names although it does not hold them."""

    def __post_init__(self) -> None:
        self.running.set()

    # --- what the scheduler calls ---------------------------------------------------------------------------------
    def statuses(self) -> list[Status]:
        """Returns the attempts that it holds."""
        return [held.status() for held in self.held.values()]

    def start(self, job: Job, attempt: Attempt, durable: Sequence[Checkpoint], manager_token: str) -> Status:
        """Accepts an attempt, or returns it when it was accepted before; as the trainer's agent does."""
        if not self.manager_token or manager_token != self.manager_token:
            raise ServiceError(Reason.NODE_MANAGED, f"{self.name} does not know this scheduler")
        key = (str(attempt.name), attempt.node_rank)
        if (known := self.forgotten.get(key)) is not None:
            return known
        if (held := self.held.get(key)) is not None:
            return held.status()
        if self.newest.get(str(job.name), 0) > attempt.name.attempt:
            raise ServiceError(Reason.STALE_ATTEMPT, f"{self.name} has had a newer attempt")
        older = [each for each in self.held.values() if each.job == str(job.name) and each.is_live]
        busy = sum(each.is_live and each not in older for each in self.held.values())
        if busy >= self.slots:
            raise ServiceError(Reason.NODE_FULL, f"{self.name} is full")
        for each in older:
            each.stop = "cancel"
            each.tell()
        self.newest[str(job.name)] = attempt.name.attempt
        held = self._begin(job, attempt, durable)
        self.held[key] = held
        held.worker = asyncio.create_task(self._work(held), name="world")
        self.trace(f"{self.name} starts {key[0]} rank {key[1]} from step {held.step}")
        return held.status()

    def _begin(self, job: Job, attempt: Attempt, durable: Sequence[Checkpoint]) -> Held:
        name = str(job.name)
        step, weights = self.saved.get(name, (0, weights_after(name, 0)))
        if step > self.knows_steps(durable):  # nobody has the steps before it on record
            step, weights = 0, weights_after(name, 0)
        for checkpoint in durable:
            if checkpoint.step > step and checkpoint.manifest is not None:
                step, weights = checkpoint.step, types_pb2.Manifest.FromString(checkpoint.manifest).digest
        held = Held(
            name=str(attempt.name),
            job=name,
            number=attempt.name.attempt,
            token=attempt.token,
            rank=attempt.node_rank,
            nodes=attempt.nodes,
            script=self.scripts(name),
            step=step,
            weights=weights,
        )
        if step and held.rank == 0:
            held.add(events_pb2.Event(resumed_from=events_pb2.ResumedFrom(step=step)))
        return held

    @staticmethod
    def knows_steps(known: Sequence[Checkpoint]) -> int:
        """Returns the newest step that the scheduler's record reaches."""
        return max((checkpoint.step for checkpoint in known), default=0)

    def find(self, attempt: Attempt) -> Held | None:
        """Returns an attempt that it holds; None: it held it once.

        Raises:
            ServiceError: NOT_FOUND, STALE_ATTEMPT.
        """
        key = (str(attempt.name), attempt.node_rank)
        if key in self.forgotten:
            return None
        held = self.held.get(key)
        if held is None:
            raise not_found("attempt on this node", attempt.name)
        if held.token != attempt.token:
            raise ServiceError(Reason.STALE_ATTEMPT, "it has another token")
        return held

    def stop(self, attempt: Attempt, *, is_saving: bool) -> None:
        """Asks a worker to stop; a cancel is stronger than a wish to save."""
        held = self.find(attempt)
        if held is not None and held.is_live and held.stop != "cancel":
            held.stop = "save" if is_saving else "cancel"
            held.tell()

    def ack(self, attempt: Attempt, seq: int, *, is_final: bool) -> None:
        """Forgets an attempt once its end is kept elsewhere."""
        held = self.find(attempt)
        if held is None:
            return
        if seq > len(held.events):
            raise ServiceError(Reason.CURSOR_OUT_OF_RANGE, f"event {seq} is not there yet")
        if is_final and not held.is_live and seq == len(held.events):
            key = (held.name, held.rank)
            self.forgotten[key] = held.status()
            del self.held[key]
            self.trace(f"{self.name} forgets {held.name} rank {held.rank}")

    # --- what happens to it ---------------------------------------------------------------------------------------
    def restart_agent(self) -> None:
        """The agent was killed and is back: workers lived on and were adopted, the secret is asked for anew."""
        self.generation += 1
        self.manager_token = ""

    def lose_workers(self, chosen: Callable[[Held], bool] = lambda held: held.is_live) -> None:
        """Workers vanish; their spools stay."""
        for held in list(self.held.values()):
            if held.is_live and chosen(held):
                self._end_worker(held)
                held.end(AttemptState.LOST, LOST)

    def wipe(self) -> None:
        """The machine is back with an empty disk."""
        for held in self.held.values():
            self._end_worker(held)
        for memory in (self.held, self.forgotten, self.newest, self.saved):
            memory.clear()
        self.restart_agent()

    def _end_worker(self, held: Held) -> None:
        if held.worker is not None:
            held.worker.cancel()

    # --- what a worker does ---------------------------------------------------------------------------------------
    async def _work(self, held: Held) -> None:
        await self._pass(0.3)
        held.state = AttemptState.RUNNING
        if held.nodes > 1 and held.rank == 0:
            held.rendezvous = f"{self.name}:{held.token}"
        held.tell()
        while held.step < STEPS:
            await self._pass(STEP_S)
            if held.stop:
                break
            self._step(held)
            if held.script.fails_at == held.step:
                held.end(AttemptState.FAILED, BAD_DATA)
                return
        if held.stop == "cancel":
            held.end(AttemptState.CANCELLED)
        elif held.stop == "save":
            self._save(held)
            held.end(AttemptState.INTERRUPTED)
        else:
            held.end(AttemptState.SUCCEEDED)
        self.trace(f"{self.name} ended {held.name} rank {held.rank} as {held.state} at step {held.step}")

    def _step(self, held: Held) -> None:
        held.step += 1
        held.weights = hashlib.sha256(f"{held.weights}{held.step}".encode()).hexdigest()
        if held.rank == 0:
            metrics = events_pb2.StepMetrics(step=held.step, total_steps=STEPS, loss=1.0 / held.step)
            held.add(events_pb2.Event(step=metrics))
            if held.step % held.script.saves_every == 0:
                self._save(held)

    def _save(self, held: Held) -> None:
        if held.rank or not held.step:
            return
        self.saved[held.job] = (held.step, held.weights)
        saved = events_pb2.CheckpointSaved(step=held.step, digest=held.weights, size_bytes=1)
        held.add(events_pb2.Event(checkpoint=saved))
        if held.script.is_durable:
            copied = events_pb2.CheckpointDurable(step=held.step)
            copied.manifest.digest = held.weights
            copied.manifest.files.add(path="state", sha256="b" * 64, size_bytes=1)
            held.add(events_pb2.Event(checkpoint_durable=copied))

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.running.wait()

    def capacity(self) -> bytes:
        """Returns what it has, as it registers it."""
        return nodes_pb2.NodeCapacity(cpu_millis=1000, memory_bytes=10**9, slots=self.slots).SerializeToString()
