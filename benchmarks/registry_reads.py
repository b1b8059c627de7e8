"""How fast ten thousand versions are read from the registry, beside MLflow's registry server on the same work.

Both serve 100 models of 100 versions from SQLite, each version with three metrics, each model with one alias. Both run
as processes with their own defaults and are asked by one client after the other, in alternating rounds: the version
that an alias names, a page of 50 versions, and a move of an alias, which is bound by the disk's sync. We are asked over
one gRPC channel. The peer is asked in both ways that HTTP has, over a new connection for each call and over a kept one
as its own client does; the ratio is that to the quicker way. Equal work: the same versions in the same order.

Our registry answers what it was asked before from memory until something is committed; so the first reads after a
commit are measured apart (`first_...`), and their 99th percentile is held to the limits like that of the others.

`python -m benchmarks.registry_reads --postgres` measures the registry on PostgreSQL, without a peer and a record.
"""

from __future__ import annotations

import argparse
import random
import statistics
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
from services.launcher import SERVICES, Suite, free_ports
from services.stores.postgres import LocalPostgres
from tuneforge.v1 import aliases_pb2, models_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

MODELS, VERSIONS = 100, 100
PAGE = 50
ROUNDS = 5
MOVES, LOOKUPS, PAGES = 40, 400, 100
TARGET_RATIO = 20.0
LOOKUP_LIMIT_MS, PAGE_LIMIT_MS = 5.0, 50.0
KINDS = ("lookup", "page", "first_lookup", "first_page", "move")


@dataclass(frozen=True, slots=True)
class Server:
    """One way to ask one of the two."""

    lookup: Callable[[int], int]
    """Model -> number of the version in production."""
    page: Callable[[int], list[int]]
    """Model -> numbers of its newest versions."""
    move: Callable[[int, int], object]
    """Model, version -> moves the alias there."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """How long each call took, by kind."""

    def timed(self, kind: str, call: Callable[[], object]) -> None:
        """Makes a call and keeps how long it took."""
        self.seconds[kind].append(_seconds(call))


def run() -> Record:
    """Runs the rounds and returns the record."""
    with (
        tempfile.TemporaryDirectory() as name,
        _registry(Path(name)) as (ours, floor),
        mlflow_server(Path(name), MODELS, VERSIONS, ALIAS) as peer,
    ):
        peers = {way: _mlflow(MlflowClient(peer.port, keeps_connection=way == "kept")) for way in ("new", "kept")}
        servers = [ours, *peers.values()]
        is_equal = _is_same(servers)
        for number in range(ROUNDS):
            for server in servers:
                _round(server, number)
        is_equal &= _is_same(servers)
        return _record(ours, peers, floor(), is_equal, peer.version)


@contextmanager
def _registry(folder: Path, postgres: LocalPostgres | None = None) -> Iterator[tuple[Server, Callable[[], float]]]:
    """Serves a filled registry; gives it with a measure of what a call without any work takes."""
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
            yield _ours(RegistryServiceStub(channel)), lambda: _floor(channel)
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

    return Server(lookup, page, move)


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


def _floor(channel: grpc.Channel) -> float:
    """Returns the median of a call without any work, in seconds: what gRPC itself costs here."""
    stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
    return statistics.median(_seconds(lambda: stub.Check(health_pb2.HealthCheckRequest())) for _ in range(LOOKUPS))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _quantile_ms(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3


def _figures(server: Server, whose: str) -> dict[str, float]:
    return {
        f"{whose}_{kind}_p{percent}_ms": round(_quantile_ms(server.seconds[kind], percent / 100), 3)
        for kind in KINDS
        for percent in (50, 99)
    }


def _record(ours: Server, peers: dict[str, Server], floor_s: float, is_equal: bool, peer_version: str) -> Record:
    figures: dict[str, float | str] = dict(_figures(ours, "ours"))
    for way, server in peers.items():
        figures |= _figures(server, f"peer_{way}")
    median = {kind: _quantile_ms(ours.seconds[kind], 0.5) for kind in KINDS}
    best = {kind: min(_quantile_ms(server.seconds[kind], 0.5) for server in peers.values()) for kind in KINDS}
    kept = {kind: _quantile_ms(peers["kept"].seconds[kind], 0.5) for kind in KINDS}
    for kind in KINDS:
        figures[f"{kind}_ratio"] = round(best[kind] / median[kind], 2)
        figures[f"{kind}_ratio_to_kept_connection"] = round(kept[kind] / median[kind], 2)
    limits = {"lookup": LOOKUP_LIMIT_MS, "page": PAGE_LIMIT_MS}
    is_quick = all(
        _quantile_ms(ours.seconds[prefix + kind], 0.99) <= limit
        for kind, limit in limits.items()
        for prefix in ("", "first_")
    )
    figures["p99_within_limits"] = "yes" if is_quick else "no"
    slower = min(limits, key=lambda kind: best[kind] / median[kind])
    return Record(
        name="registry_reads",
        what=f"median time of a {slower}, the read with the smaller ratio, over {MODELS * VERSIONS} versions",
        ours=median[slower],
        peer=best[slower],
        peer_name=f"MLflow {peer_version}, its registry server on SQLite",
        ratio=best[slower] / median[slower],
        target=TARGET_RATIO,
        limit=floor_s * 1e3,
        unit="ms",
        equal_output=is_equal,
        command="make bench NAME=registry_reads",
        details=figures,
    )


def _on_postgres() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="tuneforge-bench-") as name:
        Path(name).chmod(0o755)  # where we are root, the server is somebody else
        server = LocalPostgres(Path(name) / "postgres")
        try:
            server.start()
            with _registry(Path(name), server) as (ours, _):
                for number in range(ROUNDS):
                    _round(ours, number)
                return _figures(ours, "postgres")
        finally:
            server.stop()


def main() -> None:
    """Prints the figures of one kind of database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", action="store_true", help="the registry alone, on a durable PostgreSQL")
    figures = _on_postgres() if parser.parse_args().postgres else dict(run().details)
    print("\n".join(f"{name:<40} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
