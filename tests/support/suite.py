"""The four real services as processes on free loopback ports, for tests of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from services.launcher import SERVICES, Suite
from services.stores.ports import free_ports
from tests.support.postgres import environment_of
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import Client


def new_suite(folder: Path, env: Mapping[str, str] | None = None) -> Suite:
    """Returns a suite over a data folder, not yet started; one thread computes, so that tests can run side by side."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    databases: dict[str, str] = {}
    for service in ("registry", "scheduler", "inference"):
        databases |= environment_of(service, folder / service)
    return Suite(
        data=folder,
        ports=ports,
        metrics=False,
        extra_env={"OMP_NUM_THREADS": "1", "TUNEFORGE_TRAINER_CPU_MILLIS": "1000", **databases, **(env or {})},
    )


@contextmanager
def running_suite(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Suite]:
    """Starts the four services and stops them at the end, whatever happened."""
    suite = new_suite(folder, env)
    try:
        suite.start()
        yield suite
    finally:
        suite.stop()


def connect(suite: Suite) -> Client:
    """Returns a client of a suite's services."""
    registry, scheduler, trainer, inference = map(suite.address, SERVICES)
    return Client(registry=registry, scheduler=scheduler, trainer=trainer, inference=inference)


def tiny_inputs(folder: Path, rows: int = 24) -> tuple[Path, Path]:
    """Returns a tiny model's folder and a JSONL file of rows."""
    return make_tiny_model(folder / "tiny-model"), write_rows(folder / "rows.jsonl", rows)
