"""What a job's event log says of its run: the numbers of each step, and the weights after those that were saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from services.scheduler.store.tables import attempts, chunks
from tuneforge.v1 import events_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The numbers of a run; of what was done in several attempts, the newest one's."""

    steps: Mapping[int, tuple[float, float]]
    """Loss and gradient norm by step."""
    weights: Mapping[int, str]
    """SHA-256 of the file of weights by step that was saved."""
    replayed_weights: str
    """The same after the last step of a repetition; empty for a run."""


def read_curve(connection: Connection, job: int) -> Curve:
    """Reads a job's event log."""
    steps: dict[int, tuple[float, float]] = {}
    weights: dict[int, str] = {}
    replayed = ""
    payloads = connection.execute(select(chunks.c.payload).where(chunks.c.job == job).order_by(chunks.c.first_seq))
    for payload in payloads.scalars():
        for event in events_pb2.EventBatch.FromString(payload).events:
            match event.WhichOneof("payload"):
                case "step":
                    steps[event.step.step] = event.step.loss, event.step.grad_norm
                case "checkpoint" if event.checkpoint.weights_digest:
                    weights[event.checkpoint.step] = event.checkpoint.weights_digest
                case "outcome" if event.node_rank == 0:  # of several parts the first one has the weights
                    replayed = event.outcome.replayed_weights_digest
    return Curve(steps=steps, weights=weights, replayed_weights=replayed)


def rows_at_once_after(connection: Connection, job: int, step: int) -> tuple[int, int | None]:
    """Returns how many rows at most a run computed at once after a step, and the step up to which that was so.

    Of steps that several attempts made, the newest attempt's count. The limit is 0 where memory had not run out; the
    last step is None where nothing changed later.
    """
    columns = attempts.c.rows_at_once, attempts.c.resumed_step
    made = select(*columns).where(
        attempts.c.job == job,
        attempts.c.node_rank == 0,
        attempts.c.step > attempts.c.resumed_step,
        attempts.c.step > step,
    )
    rows, until = 0, None
    for row in connection.execute(made.order_by(attempts.c.attempt)):
        if row.resumed_step <= step:
            rows, until = row.rows_at_once, None
        elif row.rows_at_once != rows:
            until = row.resumed_step if until is None else min(until, row.resumed_step)
    return rows, until
