"""Real processes on this machine: a registry, a scheduler and several nodes, to be killed and started again.

Nothing waits for a start here: whoever is killed is spawned again after a moment and comes up while others fall.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.grpckit.parent import END_WITH_PARENT
from services.stores.ports import free_ports
from services.trainer.adoption import ProcessIdentity, is_alive
from tests.support.patience import TEST_LIMIT_S
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client

SERVICES = ("registry", "scheduler")
QUICK = {
    "TUNEFORGE_SCHEDULER_HEARTBEAT_S": "0.5",
    "TUNEFORGE_SCHEDULER_LEASE_TTL_S": "3",
    "TUNEFORGE_SCHEDULER_RETRY_BUDGET": "100",
    "TUNEFORGE_SCHEDULER_RETRY_FIRST_S": "0.1",
    "TUNEFORGE_TRAINER_CPU_MILLIS": "1000",
    "OMP_NUM_THREADS": "1",
}
"""Lost nodes are noticed soon, and a kill never spends a job's budget: what is measured is that nothing gets lost."""


@dataclass(slots=True)
class Member:
    """One process of the cluster."""

    name: str
    module: str
    port: int
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    back_at: float = 0.0
    """Monotonic time at which it is spawned again."""
    fell_at: float = 0.0
    """Monotonic time of its last kill; 0: it is up."""

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        """Returns whether it listens."""
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass(slots=True)
class Cluster:
    """The processes over one data folder. For one thread."""

    folder: Path
    nodes: int
    members: dict[str, Member] = field(default_factory=dict)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from a kill until the process listens again, by kind."""

    def __post_init__(self) -> None:
        ports = free_ports(len(SERVICES) + self.nodes)
        address = dict(zip(SERVICES, ports, strict=False))
        common = {f"TUNEFORGE_{name.upper()}_ADDRESS": f"127.0.0.1:{port}" for name, port in address.items()}
        for name in SERVICES:
            self._add(name, f"services.{name}", address[name], {**common, "TUNEFORGE_DATA": str(self.folder)})
        for number, port in enumerate(ports[len(SERVICES) :], start=1):
            env = {"TUNEFORGE_TRAINER_NODE": f"n{number}", "TUNEFORGE_DATA": str(self.folder / f"n{number}")}
            self._add(f"n{number}", "services.trainer", port, {**common, **env})

    def _add(self, name: str, module: str, port: int, env: Mapping[str, str]) -> None:
        service = module.rpartition(".")[2].upper()
        own = {f"TUNEFORGE_{service}_LISTEN": f"127.0.0.1:{port}", f"TUNEFORGE_{service}_METRICS_LISTEN": ""}
        self.members[name] = Member(name=name, module=module, port=port, env={**QUICK, **env, **own})

    def spawn(self, member: Member) -> None:
        """Starts a process and does not wait until it is ready."""
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        with (self.folder / "logs" / f"{member.name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                [sys.executable, "-m", member.module],
                env={**os.environ, **member.env, END_WITH_PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str, back_in_s: float) -> None:
        """Ends a process as a crash would; `tend` spawns it again after a while."""
        member = self.members[name]
        if member.process is not None:
            member.process.kill()
            member.process.wait()
        member.process = None
        now = time.monotonic()
        member.back_at, member.fell_at = now + back_in_s, now

    def tend(self) -> None:
        """Spawns what is due, and notes what has come back."""
        now = time.monotonic()
        for member in self.members.values():
            if member.process is None:
                if now >= member.back_at:
                    self.spawn(member)
            elif member.process.poll() is not None:
                raise AssertionError(
                    f"{member.name} ended by itself with {member.process.returncode}: {self.log(member)}"
                )
            elif member.fell_at and member.answers():
                kind = "node" if member.module == "services.trainer" else member.name
                self.recoveries.setdefault(kind, []).append(now - member.fell_at)
                member.fell_at = 0.0

    def log(self, member: Member) -> str:
        """Returns the end of what a process has said."""
        return (self.folder / "logs" / f"{member.name}.log").read_text()[-2000:]

    def workers(self) -> list[ProcessIdentity]:
        """Returns the processes that train, as their nodes have written them down."""
        found = []
        for path in self.folder.glob("n*/trainer/jobs/*/*/attempts/*/worker.json"):
            try:
                found.append(ProcessIdentity.from_json(json.loads(path.read_text())))
            except (OSError, ValueError, KeyError):
                continue  # it is just being written or removed
        return [each for each in found if is_alive(each)]

    def stop(self) -> None:
        """Starts what was killed, so that every node can end its workers, and stops everything."""
        for member in self.members.values():
            if not member.is_running:
                self.spawn(member)
        deadline = time.monotonic() + TEST_LIMIT_S
        while not all(member.answers() for member in self.members.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for name in reversed(list(self.members)):
            process = self.members[name].process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TEST_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def connect(self) -> Client:
        """Returns a client."""
        ports = {name: f"127.0.0.1:{self.members[name].port}" for name in SERVICES}
        return Client(registry=ports["registry"], scheduler=ports["scheduler"])


@contextmanager
def running_cluster(folder: Path, nodes: int) -> Iterator[Cluster]:
    """Runs a cluster with a model `tiny` and rows `animals` while the block runs."""
    cluster = Cluster(folder / "cluster", nodes)
    try:
        for member in cluster.members.values():
            cluster.spawn(member)
        with cluster.connect() as client:
            deadline = time.monotonic() + TEST_LIMIT_S
            while not all(member.answers() for member in cluster.members.values()):
                assert time.monotonic() < deadline, "the cluster does not come up"
                time.sleep(0.05)
            client.models.import_folder(make_tiny_model(folder / "model", layers=3, hidden=128), "tiny")
            client.datasets.upload(write_rows(folder / "rows.jsonl", 24), "animals")
            while len(list(client.nodes.list())) < nodes:
                assert time.monotonic() < deadline, "the nodes do not register"
                time.sleep(0.05)
        yield cluster
    finally:
        cluster.stop()
