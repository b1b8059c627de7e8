"""How fast ten thousand versions are read from the registry, beside MLflow's registry server on the same work.

Both serve 100 models of 100 versions from SQLite, each version with three metrics, each model with one alias. Both run
as processes with their own defaults. Equal work: the same versions in the same order.

First one client asks one after the other, in alternating rounds: the version that an alias names, a page of 50
versions, and a move of an alias, which is bound by the disk's sync. We are asked over one gRPC channel. The peer is
asked in both ways that HTTP has, over a new connection for each call and over a kept one as its own client does. Then
eight clients read at once, each over a kept connection, and the peer also over a new one for each call.

The ratio is that of the processor time which the servers need for a read under many clients, for the read with the
smaller ratio and the cheaper way to ask the peer: it is the server alone, without the client, and says how many reads a
machine can serve. What one client waits for and reads a second of many, which have the client's work in them, stand
beside it with their own ratios.

Our registry answers what it was asked before from memory until something is committed; so the first reads after a
commit are measured apart (`first_...`), as are those after a revocation (`revoked_...`), while which every read looks
for what was made from the revoked data. Their 99th percentile is held to the limits like that of the others. The same
is measured of our registry on PostgreSQL (`postgres_...`).
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.mlflow_server import MlflowClient, mlflow_server
from benchmarks.record import Record
from benchmarks.registry_fill import ALIAS, PROJECT, fill_registry, model_id
from benchmarks.registry_load import CLIENTS, Ask, Load, measure
from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from services.stores.postgres import LocalPostgres
from tuneforge.v1 import aliases_pb2, datasets_pb2, lineage_pb2, models_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

MODELS, VERSIONS = 100, 100
PAGE = 50
ROUNDS = 5
MOVES, LOOKUPS, PAGES = 40, 400, 100
TARGET_RATIO = 20.0
LOOKUP_LIMIT_MS, PAGE_LIMIT_MS = 5.0, 50.0
KINDS = ("lookup", "page", "first_lookup", "first_page", "move")
REVOKED_KINDS = ("revoked_lookup", "revoked_page")
REVOCATIONS = 20
DATASET = "withdrawn"
CLIENT_READS = {"lookup": 400, "page": 100}
"""Reads of each of many clients."""
NOTHING = "call_without_work"


@dataclass(frozen=True, slots=True)
class Server:
    """One way to ask one of the two."""

    lookup: Callable[[int], int]
    """Model -> number of the version in production."""
    page: Callable[[int], list[int]]
    """Model -> numbers of its newest versions."""
    move: Callable[[int, int], object]
    """Model, version -> moves the alias there."""
    revoke: Callable[[], object] | None = None
    """Revokes data, or takes that back; None where there is no such thing."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in (*KINDS, *REVOKED_KINDS)})
    """How long each call took, by kind."""

    def timed(self, kind: str, call: Callable[[], object]) -> None:
        """Makes a call and keeps how long it took."""
        self.seconds[kind].append(_seconds(call))


@dataclass(frozen=True, slots=True)
class Client:
    """How a process of many asks one of the two; to be sent to that process."""

    whose: str
    """`ours`, or the way to ask the peer: `new` or `kept`."""
    address: str
    kind: str
    """`lookup` or `page`; of ours also a call without any work, `NOTHING`."""

    def __call__(self) -> Ask:
        """Connects, and returns what asks for a model."""
        if self.whose == "ours":
            channel = grpc.insecure_channel(self.address)
            server = _ours(RegistryServiceStub(channel))
            if self.kind == NOTHING:
                health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                return lambda _: health.Check(health_pb2.HealthCheckRequest())
        else:
            server = _mlflow(MlflowClient(int(self.address), keeps_connection=self.whose == "kept"))
        return server.lookup if self.kind == "lookup" else server.page


def run() -> Record:
    """Runs the rounds and returns the record."""
    loads: dict[tuple[str, str], Load] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        _registry(Path(name)) as (ours, suite),
        mlflow_server(Path(name), MODELS, VERSIONS, ALIAS) as peer,
    ):
        peers = {way: _mlflow(MlflowClient(peer.port, keeps_connection=way == "kept")) for way in ("new", "kept")}
        servers = [ours, *peers.values()]
        is_equal = _is_same(servers)
        for number in range(ROUNDS):
            for server in servers:
                _round(server, number)
        is_equal &= _is_same(servers)
        pids = {"ours": suite.processes["registry"].pid, "new": peer.pid, "kept": peer.pid}
        for kind, reads in CLIENT_READS.items():
            for whose, pid in pids.items():
                client = Client(whose, suite.address("registry") if whose == "ours" else str(peer.port), kind)
                loads[whose, kind] = measure(client, pid, models=MODELS, reads=reads)
        nothing = Client("ours", suite.address("registry"), NOTHING)
        loads["ours", NOTHING] = measure(nothing, pids["ours"], models=MODELS, reads=CLIENT_READS["lookup"])
        _revocations(ours)
        figures = _figures(ours, "ours") | _on_postgres()
        for way, server in peers.items():
            figures |= _figures(server, f"peer_{way}")
        return _record(figures, loads, is_equal, peer.version)


@contextmanager
def _registry(folder: Path, postgres: LocalPostgres | None = None) -> Iterator[tuple[Server, Suite]]:
    """Serves a filled registry; gives it with its process."""
    address = None
    env = {"TUNEFORGE_REGISTRY_COLLECT_EVERY_S": "0"}
    if postgres is not None:
        postgres.create_database("registry")
        address = postgres.address("registry")
        env["TUNEFORGE_REGISTRY_DATABASE_URL"] = str(address.url)
        env["TUNEFORGE_REGISTRY_DATABASE_PASSWORD_FILE"] = str(address.password_file)
    fill_registry(folder / "registry", MODELS, VERSIONS, address)
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    suite = Suite(data=folder, ports=ports, metrics=False, extra_env=env)
    try:
        suite.start("registry")
        with grpc.insecure_channel(suite.address("registry")) as channel:
            yield _ours(RegistryServiceStub(channel)), suite
    finally:
        suite.stop()


def _ours(stub: RegistryServiceStub) -> Server:
    def name_of(model: int) -> str:
        return f"projects/{PROJECT}/models/{model_id(model)}"

    def lookup(model: int) -> int:
        found = stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=f"{name_of(model)}/aliases/{ALIAS}"))
        return int(found.name.rpartition("/")[2])

    def page(model: int) -> list[int]:
        found = stub.ListModelVersions(models_pb2.ListModelVersionsRequest(parent=name_of(model), page_size=PAGE))
        return [int(version.name.rpartition("/")[2]) for version in found.versions]

    def move(model: int, version: int) -> object:
        alias, target = f"{name_of(model)}/aliases/{ALIAS}", f"{name_of(model)}/versions/{version}"
        return stub.SetAlias(aliases_pb2.SetAliasRequest(name=alias, version=target))

    def revoke() -> object:
        """Revokes the data set, made when missing, or takes that back."""
        name = f"projects/{PROJECT}/datasets/{DATASET}"
        if not stub.ListDatasets(datasets_pb2.ListDatasetsRequest(parent=f"projects/{PROJECT}")).datasets:
            stub.CreateDataset(datasets_pb2.CreateDatasetRequest(parent=f"projects/{PROJECT}", dataset_id=DATASET))
        log = stub.ListRevocations(lineage_pb2.ListRevocationsRequest(parent=name, page_size=1)).changes
        if log and log[0].is_revoked:
            stub.UnrevokeDataset(lineage_pb2.UnrevokeDatasetRequest(name=name, reason="measured"))
        return stub.RevokeDataset(lineage_pb2.RevokeDatasetRequest(name=name, reason="measured"))

    return Server(lookup, page, move, revoke)


def _mlflow(client: MlflowClient) -> Server:
    return Server(
        lambda model: int(client.by_alias(model_id(model), ALIAS)["version"]),
        lambda model: [int(version["version"]) for version in client.page(model_id(model), PAGE)["model_versions"]],
        lambda model, version: client.set_alias(model_id(model), ALIAS, version),
    )


def _is_same(servers: list[Server]) -> bool:
    """Returns whether all give the same versions of some models."""
    return all(
        len({(server.lookup(model), *server.page(model)) for server in servers}) == 1 for model in range(0, MODELS, 10)
    )


def _round(server: Server, number: int) -> None:
    """Asks the same things of every server in the same round."""
    chance = random.Random(number)
    for _ in range(MOVES):
        model, version = chance.randrange(MODELS), chance.randrange(1, VERSIONS + 1)
        server.timed("move", partial(server.move, model, version))
        server.timed("first_lookup", partial(server.lookup, chance.randrange(MODELS)))
        server.move(model, version % VERSIONS + 1)
        server.timed("first_page", partial(server.page, chance.randrange(MODELS)))
    for _ in range(LOOKUPS):
        server.timed("lookup", partial(server.lookup, chance.randrange(MODELS)))
    for _ in range(PAGES):
        server.timed("page", partial(server.page, chance.randrange(MODELS)))


def _revocations(server: Server) -> None:
    """Reads right after data was revoked, in the state in which that stands."""
    assert server.revoke is not None
    chance = random.Random(0)
    for kind, read in (("revoked_lookup", server.lookup), ("revoked_page", server.page)):
        for _ in range(REVOCATIONS):
            server.revoke()
            server.timed(kind, partial(read, chance.randrange(MODELS)))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _quantile_ms(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


def _figures(server: Server, whose: str) -> dict[str, float | str]:
    return {
        f"{whose}_{kind}_p{percent}_ms": round(_quantile_ms(seconds, percent / 100), 3)
        for kind, seconds in server.seconds.items()
        if seconds
        for percent in (50, 99)
    }


def _ratios(figures: dict[str, float | str], loads: dict[tuple[str, str], Load]) -> dict[str, float]:
    """Returns how much better we are in each figure; without `kept`, than the peer asked in its better way."""
    found: dict[str, float] = {}
    for kind in KINDS:
        ours, new, kept = (float(figures[f"{whose}_{kind}_p50_ms"]) for whose in ("ours", "peer_new", "peer_kept"))
        found |= {f"{kind}_ratio": min(new, kept) / ours, f"{kind}_ratio_to_kept_connection": kept / ours}
    for kind in CLIENT_READS:
        mine, others = loads["ours", kind], [loads[way, kind] for way in ("new", "kept")]
        found[f"{kind}_server_time_ratio"] = min(other.server_ms for other in others) / mine.server_ms
        found[f"{kind}_reads_per_s_ratio"] = mine.reads_per_s / max(other.reads_per_s for other in others)
    return {name: round(ratio, 2) for name, ratio in found.items()}


def _record(
    figures: dict[str, float | str],
    loads: dict[tuple[str, str], Load],
    is_equal: bool,
    peer_version: str,
) -> Record:
    for (whose, kind), load in loads.items():
        who = whose if whose == "ours" else f"peer_{whose}"
        figures[f"{who}_{kind}_reads_per_s"] = round(load.reads_per_s, 1)
        figures[f"{who}_{kind}_server_ms"] = round(load.server_ms, 3)
    ratios = _ratios(figures, loads)
    limits = {"lookup": LOOKUP_LIMIT_MS, "page": PAGE_LIMIT_MS}
    is_quick = all(
        float(figures[f"ours_{prefix}{kind}_p99_ms"]) <= limit
        for kind, limit in limits.items()
        for prefix in ("", "first_", "revoked_")
    )
    figures["p99_within_limits"] = "yes" if is_quick else "no"
    slower = min(CLIENT_READS, key=lambda kind: ratios[f"{kind}_server_time_ratio"])
    ours, peer = loads["ours", slower].server_ms, min(loads[way, slower].server_ms for way in ("new", "kept"))
    return Record(
        name="registry_reads",
        what=(
            f"processor time of the server for a {slower}, the read with the smaller ratio, {CLIENTS} clients at once, "
            f"{MODELS * VERSIONS} versions; what a client waits for is in the details"
        ),
        ours=ours,
        peer=peer,
        peer_name=f"MLflow {peer_version}, its registry server on SQLite",
        ratio=peer / ours,
        target=TARGET_RATIO,
        limit=loads["ours", NOTHING].server_ms,
        unit="ms",
        equal_output=is_equal,
        command="make bench NAME=registry_reads",
        details=figures | ratios,
    )


def _on_postgres() -> dict[str, float | str]:
    with tempfile.TemporaryDirectory(prefix="tuneforge-bench-") as name:
        Path(name).chmod(0o755)  # where we are root, the server is somebody else
        server = LocalPostgres(Path(name) / "postgres")
        try:
            server.start()
            with _registry(Path(name), server) as (ours, _):
                for number in range(ROUNDS):
                    _round(ours, number)
                _revocations(ours)
                return _figures(ours, "postgres")
        finally:
            server.stop()


def main() -> None:
    """Prints the figures; keeps no record."""
    record = run()
    for name, value in {**record.details, "ratio": record.ratio}.items():
        print(f"{name:<44} {value}")


if __name__ == "__main__":
    main()
