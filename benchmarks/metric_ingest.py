"""How many points of metrics a second come into a durable, watchable log, beside MLflow's batch call.

Eight runs report seven figures of each step. Ours: a node (this process) streams the steps of eight attempts to a real
scheduler over SQLite, a hundred to a message; a point counts once its step is committed, which the scheduler's
acknowledgement says, and each run has a watcher who must see every step once. Peer: such points to MLflow's tracking
server over SQLite by `log-batch`, a thousand to a call, which is the most that it takes, one client for each run, over
kept connections as MLflow's own client has. Rounds alternate. Equal work: all points of all runs are there.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.mlflow_server import MlflowServer, mlflow_server
from benchmarks.queue_load import PARENT, QuickNode, Trainer, served
from benchmarks.queue_scale import prepare
from benchmarks.record import Record
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from tuneforge.v1 import events_pb2, nodes_pb2, scheduler_pb2, scheduler_pb2_grpc, spec_pb2, trainer_pb2

RUNS = 8
STEPS, PEER_STEPS = 4000, 300
"""Steps of a run in a round; the peer's rate does not grow with more."""
ROUNDS = 2
STEPS_PER_MESSAGE = 100
POINTS_PER_CALL = 1000
FIGURES = ("loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "step_seconds", "epoch")
TARGET_RATIO = 20.0
TRIES = 5


class _Reporting(Trainer):
    """A node whose attempts report their steps once they are told to."""

    def __init__(self, node: QuickNode) -> None:
        super().__init__(node)
        self.go = asyncio.Event()
        self.kept: dict[str, int] = {}
        """Number of the newest event that the scheduler has committed, by attempt."""
        self.changed = asyncio.Event()

    async def WatchAttempt(
        self, request: trainer_pb2.WatchAttemptRequest, _: Any
    ) -> AsyncIterator[trainer_pb2.WatchAttemptResponse]:
        """Tells what happens in an attempt."""
        status = self.node.held[request.name]
        status.state = nodes_pb2.ATTEMPT_STATE_RUNNING
        self.kept.setdefault(request.name, 0)
        self.changed.set()
        yield trainer_pb2.WatchAttemptResponse(status=status)
        job, _, number = request.name.rpartition("/attempts/")
        await self.go.wait()
        for first in range(1, STEPS + 1, STEPS_PER_MESSAGE):
            steps = range(first, first + STEPS_PER_MESSAGE)
            events = [events_pb2.Event(job=job, attempt=int(number), seq=step, step=_step(step)) for step in steps]
            status.step = status.last_seq = steps[-1]
            yield trainer_pb2.WatchAttemptResponse(events=events, status=status)
        await asyncio.Event().wait()

    async def AckEvents(self, request: trainer_pb2.AckEventsRequest, _: Any) -> nodes_pb2.AttemptStatus:
        """Notes what is kept."""
        self.kept[request.name] = max(self.kept.get(request.name, 0), request.seq)
        self.changed.set()
        return self.node.held[request.name]

    async def until(self, count: int, seq: int) -> None:
        """Waits until so many attempts have events up to a number committed."""
        while sum(kept >= seq for kept in self.kept.values()) < count:
            self.changed.clear()
            await self.changed.wait()


def _step(step: int) -> events_pb2.StepMetrics:
    return events_pb2.StepMetrics(
        step=step,
        total_steps=STEPS,
        epoch=step / STEPS,
        loss=2.0 / step,
        learning_rate=1e-4,
        grad_norm=1.0 + 1.0 / step,
        tokens=4096,
        tokens_per_second=20_000.0,
        step_seconds=0.2,
    )


def run() -> Record:
    """Runs the rounds and returns the record."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, peers, is_equal = [], [], True
        with mlflow_server(folder, models=1, versions=1, alias="production") as peer:
            for number in range(ROUNDS):
                seconds, is_whole = _ours(folder / f"ours-{number}")
                ours.append(RUNS * STEPS * len(FIGURES) / seconds)
                is_equal &= is_whole
                seconds, is_whole = _theirs(peer, number)
                peers.append(RUNS * PEER_STEPS * len(FIGURES) / seconds)
                is_equal &= is_whole
    rate, theirs = statistics.median(ours), statistics.median(peers)
    return Record(
        name="metric_ingest",
        what=f"points of metrics a second from {RUNS} runs that are committed and watched",
        ours=rate,
        peer=theirs,
        peer_name=f"MLflow {peer.version}, `log-batch` of its tracking server on SQLite",
        ratio=rate / theirs,
        target=TARGET_RATIO,
        limit=_encoded_per_s(),
        unit="1/s",
        equal_output=is_equal,
        command="make bench NAME=metric_ingest",
        details={
            "runs": RUNS,
            "rounds": ROUNDS,
            "steps_of_a_run": STEPS,
            "steps_of_a_run_peer": PEER_STEPS,
            "figures_of_a_step": len(FIGURES),
            "ours_worst": min(ours),
            "peer_best": max(peers),
            "limit_is": "steps made and serialised on one core, nothing kept",
        },
    )


def _ours(folder: Path) -> tuple[float, bool]:
    """Returns the seconds that all steps of all runs took, and whether every watcher saw each of them once."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    suite = Suite(data=folder, ports=ports, metrics=False)
    try:
        suite.start("registry", "scheduler")
        return asyncio.run(_report(suite, prepare(suite, folder)))
    finally:
        suite.stop()


async def _report(suite: Suite, spec: spec_pb2.TrainingSpec) -> tuple[float, bool]:
    address = suite.address("scheduler")
    node = QuickNode(name="nodes/reporting", slots=RUNS)
    trainer = _Reporting(node)
    async with served([(node, trainer)], address), grpc.aio.insecure_channel(address) as channel:
        stub = scheduler_pb2_grpc.SchedulerServiceStub(channel)
        watches = []
        for number in range(RUNS):
            request = scheduler_pb2.CreateJobRequest(parent=PARENT, spec=spec, job_id=f"run-{number}")
            name = (await stub.CreateJob(request)).name
            watches.append(asyncio.create_task(_watch(stub, name)))
        await trainer.until(RUNS, 0)
        began = time.perf_counter()
        trainer.go.set()
        await trainer.until(RUNS, STEPS)
        seconds = time.perf_counter() - began
        return seconds, await asyncio.gather(*watches) == [list(range(1, STEPS + 1))] * RUNS


async def _watch(stub: Any, name: str) -> list[int]:
    """Returns the steps that a watcher saw, in their order."""
    steps: list[int] = []
    async for message in stub.WatchJob(scheduler_pb2.WatchJobRequest(name=name)):
        steps += [event.step.step for event in message.events.events if event.HasField("step")]
        if steps and steps[-1] == STEPS:
            break
    return steps


def _theirs(server: MlflowServer, number: int) -> tuple[float, bool]:
    """Returns the seconds that the same took at the peer, and whether the last step of each run is there."""
    clients = [_Mlflow(server.port) for _ in range(RUNS)]
    experiment = clients[0].call("POST", "experiments/create", {"name": f"round-{number}"})["experiment_id"]
    runs = [
        client.call("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"] for client in clients
    ]
    threads = [
        threading.Thread(target=client.log, args=(run_id,)) for client, run_id in zip(clients, runs, strict=True)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    found = [client.last_step(run_id) for client, run_id in zip(clients, runs, strict=True)]
    for client in clients:
        client.close()
    return seconds, found == [PEER_STEPS] * RUNS


class _Mlflow:
    """No more than HTTP and JSON, so that the server alone is measured."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def log(self, run_id: str) -> None:
        """Logs all steps of a run."""
        points = [
            {"key": name, "value": float(getattr(_step(step), name)), "timestamp": step, "step": step}
            for step in range(1, PEER_STEPS + 1)
            for name in FIGURES
        ]
        for first in range(0, len(points), POINTS_PER_CALL):
            metrics = points[first : first + POINTS_PER_CALL]
            self.call("POST", "runs/log-batch", {"run_id": run_id, "metrics": metrics})

    def last_step(self, run_id: str) -> int:
        """Returns the newest step of the loss."""
        metrics = self.call("GET", f"runs/get?run_id={run_id}")["run"]["data"]["metrics"]
        return next(int(metric["step"]) for metric in metrics if metric["key"] == "loss")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Makes a call and returns its answer."""
        for _ in range(TRIES):
            try:
                status, text = self._ask(method, path, body)
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self._connection.close()  # the server ends kept connections that were idle; points may come again
        else:
            raise RuntimeError(f"MLflow closed the connection {TRIES} times")
        if status != http.HTTPStatus.OK:
            raise RuntimeError(f"MLflow answered {status}: {text[:500]!r}")
        return json.loads(text)

    def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, f"/api/2.0/mlflow/{path}", body=content, headers=headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def _encoded_per_s() -> float:
    """Returns how many points a second one core makes and serialises."""
    began = time.perf_counter()
    for step in range(1, STEPS + 1):
        events_pb2.Event(job="projects/default/jobs/run-0", attempt=1, seq=step, step=_step(step)).SerializeToString()
    return STEPS * len(FIGURES) / (time.perf_counter() - began)
