"""Shares one machine between requests: every model gets its turn, however many requests wait for another.

Requests that wait for the same model start together as one batch. Batches of different models take turns after a slice
of time, so a long completion of one delays the others by a slice, not by its length.
"""

import collections
import time
from collections.abc import Callable
from typing import Any, Final

from services.inference.engine.batch import Batch, Piece
from services.inference.engine.intake import Job
from services.inference.engine.models import ModelKey

SLICE_S: Final = 0.1
"""How long one model computes before the next takes its turn: changing adapters costs some 15 ms."""


class Rotation:
    """All requests that wait or run."""

    def __init__(self, start: Callable[[ModelKey, Any], Batch], max_rows: int) -> None:
        """Takes how a batch is made of rows, and the most rows that run at once for one model."""
        self._start = start
        self._max_rows = max_rows
        self._waiting: dict[ModelKey, collections.deque[Job]] = {}
        self._running: dict[ModelKey, collections.deque[Batch]] = {}
        self._turns: collections.deque[ModelKey] = collections.deque()
        self._turn_ends = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._turns

    def add(self, job: Job) -> None:
        """Queues a request behind those of the same model."""
        self._waiting.setdefault(job.model, collections.deque()).append(job)
        if job.model not in self._turns:
            self._turns.append(job.model)

    def cancel(self, number: int) -> None:
        """Ends a request without a further piece; its room is free at the next step."""
        for key, jobs in list(self._waiting.items()):
            self._waiting[key] = collections.deque(job for job in jobs if job.number != number)
        for batches in self._running.values():
            for batch in batches:
                batch.cancel(number)

    def step(self) -> list[Piece]:
        """Computes one token of one batch; the model whose turn it is goes on until its slice is over."""
        key = self._turns[0]
        self._admit(key)
        batches = self._running.get(key)
        pieces: list[Piece] = []
        if batches:
            pieces = batches[0].step()
            if batches[0].is_done:
                batches.popleft()
            else:
                batches.rotate(-1)
        if not self._running.get(key) and not self._waiting.get(key):
            self._running.pop(key, None)
            self._waiting.pop(key, None)
            self._turns.popleft()
            self._turn_ends = 0.0
        elif time.monotonic() >= self._turn_ends:
            self._turns.rotate(-1)
            self._turn_ends = time.monotonic() + SLICE_S
        return pieces

    def drop_current(self) -> set[int]:
        """Gives up the batch whose step failed and returns the numbers of its requests."""
        key = self._turns[0]
        batches = self._running.get(key)
        return {row.request for row in batches.popleft().rows} if batches else set()

    def _admit(self, key: ModelKey) -> None:
        """Starts what waits for a model, as far as there is room, as one batch."""
        waiting = self._waiting.get(key)
        running = self._running.setdefault(key, collections.deque())
        room = self._max_rows - sum(1 for batch in running for row in batch.rows if not row.is_ended)
        rows: list[Any] = []
        while waiting and (len(waiting[0].rows) <= room - len(rows) or (not running and not rows)):
            rows.extend(waiting.popleft().rows)
        if rows:
            running.append(self._start(key, rows))
