"""What finished runs were measured at, beside what was predicted; one row a job."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select

from services.scheduler.calibration import Kind, Measured
from services.scheduler.store.tables import measured_runs
from services.scheduler.store.transaction import Transaction

NEWEST = 50
"""Runs of a kind that count: devices and this program change."""


def add(tx: Transaction, job: int, train_digest: str, row_tokens: float, run: Measured) -> None:
    """Keeps a finished run, once."""
    known = tx.connection.execute(select(measured_runs.c.job).where(measured_runs.c.job == job)).one_or_none()
    if known is not None:
        return
    kind = run.kind
    tx.connection.execute(
        insert(measured_runs).values(
            job=job,
            family=kind.family,
            method=kind.method,
            compute=kind.compute,
            device=kind.device,
            train_digest=train_digest,
            row_tokens=row_tokens,
            arithmetic_bytes=run.arithmetic_bytes,
            real_bytes=run.real_bytes,
            flops_per_token=run.flops_per_token,
            tokens=run.tokens,
            seconds=run.seconds,
            joules=run.joules,
        )
    )


def of_device(connection: Connection, kind: Kind) -> list[Measured]:
    """Returns the newest runs of a method and number format on a kind of device, of every family."""
    parameters = {"device": kind.device, "method": kind.method, "compute": kind.compute}
    return [_measured(row) for row in connection.execute(_OF_DEVICE, parameters)]


_OF_DEVICE = (
    select(measured_runs)
    .where(*(measured_runs.c[name] == bindparam(name) for name in ("device", "method", "compute")))
    .order_by(measured_runs.c.job.desc())
    .limit(NEWEST)
)


def row_tokens(connection: Connection, train_digest: str) -> float | None:
    """Returns the tokens that a row of some data had when it was last trained on; None when it never was."""
    found = connection.execute(_ROW_TOKENS, {"train_digest": train_digest}).scalar_one_or_none()
    return None if found is None else float(found)


_ROW_TOKENS = (
    select(measured_runs.c.row_tokens)
    .where(measured_runs.c.train_digest == bindparam("train_digest"))
    .order_by(measured_runs.c.job.desc())
    .limit(1)
)


def kinds(connection: Connection) -> dict[Kind, list[Measured]]:
    """Returns all runs by kind, kinds in order."""
    found: dict[Kind, list[Measured]] = {}
    columns = measured_runs.c
    order = (columns.family, columns.method, columns.compute, columns.device, columns.job)
    for row in connection.execute(select(measured_runs).order_by(*order)):
        run = _measured(row)
        found.setdefault(run.kind, []).append(run)
    return found


def _measured(row: Row[Any]) -> Measured:
    return Measured(
        kind=Kind(family=row.family, method=row.method, compute=row.compute, device=row.device),
        arithmetic_bytes=row.arithmetic_bytes,
        real_bytes=row.real_bytes,
        flops_per_token=row.flops_per_token,
        tokens=row.tokens,
        seconds=row.seconds,
        joules=row.joules,
    )
