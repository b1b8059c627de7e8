"""The one thread that writes: writes that wait share a commit, and each is told what became of it once it is certain.

On a server the connection can break at any moment, also between a commit and its answer. Then the thread connects
again and looks for the mark that the transaction left: it is there, and the results stand, or it is not, and the writes
run again. Callers wait meanwhile, up to `PATIENCE_S` after the connection was lost; those behind them are refused at
once. A caller who was refused may ask again with the same request id, which was written in the same transaction.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from services.grpckit.database.backend import Backend
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import FolderLocked, StartRefused
from services.grpckit.logging import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

WRITES_PER_COMMIT = 256
"""Writes that share one commit at most: keeps the wait of the first one bounded when writers never pause."""
LONGEST_RUN_S, PROMPT_RUN_S = 0.02, 0.005
"""Processor seconds after which a running commit takes no further write, other than those it takes in any case; and the
same of one with prompt writes, which wait for its end."""
USUAL_PER_COMMIT, PATIENT_PER_COMMIT = 2, 1
"""Usual and patient writes that a commit takes whatever else waits, so that none are ever put off for ever; once a
prompt write waits, it takes no more of them. A patient one may be a group."""
CAREFUL_COMMITS = 64
"""Commits with a savepoint around each write after one in which a write failed: failures come in swarms."""
PATIENCE_S = 5.0
"""Seconds that writes wait for a lost connection to come back. 5: a server that is restarted is back by then."""
RETRY_S = 0.1
"""Seconds between two tries to connect."""


class Rank(IntEnum):
    """Which of the writes that wait go first."""

    PROMPT = 0
    """Few at a time, and somebody idles until they are done."""
    USUAL = 1
    PATIENT = 2
    """May come by the hundred; not put off for ever."""


@dataclass(frozen=True, slots=True)
class _Write(Generic[T]):
    """One queued write and the place where its result goes."""

    run: Callable[[Connection], T]
    future: Future[T]
    rank: Rank
    is_unseen: bool


class _OneFailed(Exception):
    """A write of a commit without savepoints has failed: all of them run again, each in its own."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one write of a batch returned or raised; it counts only after the commit."""

    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Try:
    """A transaction whose commit was asked for."""

    mark: str
    outcomes: list[_Outcome]


class Writer:
    """The queue and its thread.

    Args:
        backend: The database; open.
        connection: Its writer's connection.
        patience_s: Seconds that writes wait for a lost connection.
    """

    def __init__(self, backend: Backend, connection: Connection, *, patience_s: float = PATIENCE_S) -> None:
        self._backend = backend
        self._connection: Connection | None = connection
        self._patience_s = patience_s
        self._lost_at: float | None = None
        self._writes: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._waiting: tuple[deque[_Write[Any]], ...] = tuple(deque() for _ in Rank)
        """By rank; for the thread alone."""
        self._knocks: deque[None] = deque()
        """One for each prompt write that came since the running commit was put together."""
        self._careful = 0
        """Commits to come whose writes run in savepoints."""
        self._closing = threading.Event()
        self._is_over = threading.Event()
        """Whether the thread has ended."""
        self._thread = threading.Thread(target=self._run, name="database-writer", daemon=True)
        self.is_displaced = False
        """Whether another process has become the writer since the connection was lost."""
        self.commits = 0
        """Transactions since the start, the failed ones among them."""
        self.changes = 0
        """Those of them that may have changed what is answered."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Finishes the queued writes and ends the thread; a server that is away is not waited for."""
        self._closing.set()
        self._writes.put(None)
        self._thread.join()
        self._is_over.set()
        self._refuse_late()
        if self._connection is not None:
            self._connection.close()

    def submit(self, run: Callable[[Connection], T], *, rank: Rank = Rank.USUAL, is_unseen: bool = False) -> Future[T]:
        """Queues a write; its result comes after the commit. See `Database.write`."""
        future: Future[T] = Future()
        self._writes.put(_Write(run, future, rank, is_unseen))
        if rank is Rank.PROMPT:
            self._knocks.append(None)
        if self._is_over.is_set():
            self._refuse_late()
        return future

    def _refuse_late(self) -> None:
        """Answers writes that came behind the end of the queue: nobody takes them, and their callers would wait."""
        with suppress(queue.Empty):
            while True:
                late = self._writes.get_nowait()
                if late is not None and late.future.set_running_or_notify_cancel():
                    late.future.set_exception(RuntimeError("the database is closed"))

    # --- thread ---------------------------------------------------------------------------------------------------
    def _run(self) -> None:
        is_open = True
        while is_open or any(self._waiting):
            is_open = self._collect() and is_open
            batch, certain = self._batch()
            if batch:
                outcomes = self._outcomes(batch, certain)
                self.commits += 1  # before anybody hears of it: who was told sees no answer from before
                self.changes += not all(write.is_unseen for write in batch)
                self._answer(batch, outcomes)
                self._put_back(batch[len(outcomes) :])

    def _collect(self) -> bool:
        """Sorts what was queued, and waits for something where nothing is left; False once the queue was closed."""
        self._knocks.clear()  # before the queue is read: a knock too many ends a commit early, and one is never missed
        try:
            entry = self._writes.get(block=not any(self._waiting))
            while entry is not None:
                self._waiting[entry.rank].append(entry)
                entry = self._writes.get_nowait()
        except queue.Empty:
            return True
        return False

    def _batch(self) -> tuple[list[_Write[Any]], int]:
        """Takes what may share the next commit, in the order in which it runs; without those whose caller has left.

        Returns:
            The writes, and how many of them run however long they take.
        """
        prompt, usual, patient = self._waiting
        batch: list[_Write[Any]] = []
        _take(prompt, batch, WRITES_PER_COMMIT)
        _take(usual, batch, len(batch) + USUAL_PER_COMMIT)
        _take(patient, batch, len(batch) + PATIENT_PER_COMMIT)
        certain = len(batch)
        _take(usual, batch, WRITES_PER_COMMIT)
        _take(patient, batch, WRITES_PER_COMMIT)
        return batch, certain

    def _put_back(self, writes: Sequence[_Write[Any]]) -> None:
        """Has writes run in the next commit, before those that came after them."""
        for write in reversed(writes):
            self._waiting[write.rank].appendleft(write)

    def _answer(self, batch: Sequence[_Write[Any]], outcomes: Sequence[_Outcome]) -> None:
        for write, outcome in zip(batch, outcomes, strict=False):
            if outcome.error is not None:
                write.future.set_exception(outcome.error)
            else:
                write.future.set_result(outcome.value)

    def _outcomes(self, batch: Sequence[_Write[Any]], certain: int) -> list[_Outcome]:
        """Commits a batch, over as many connections as that takes.

        Returns:
            What became of each write, as far as they ran: a commit that takes long goes without the last ones.
        """
        unanswered: _Try | None = None
        while True:
            try:
                connection = self._connected()
                if unanswered is not None and self._backend.is_marked(connection, unanswered.mark):
                    self._lost_at = None
                    return unanswered.outcomes
                unanswered = None
                with connection.begin():
                    outcomes = self._run_all(connection, batch, certain)
                    unanswered = _Try(self._backend.mark(connection), outcomes)  # here the block asks for the commit
            except _OneFailed:
                self._careful = CAREFUL_COMMITS
            except BaseException as error:  # noqa: BLE001 - every waiting caller must hear of it
                if not self._is_lost(error):
                    return [_Outcome(error=self._translated(error))] * len(batch)
                if not self._waits_for(error):
                    return [_Outcome(error=_given_up(is_doubtful=unanswered is not None))] * len(batch)
            else:
                self._lost_at = None
                return outcomes

    def _run_all(self, connection: Connection, batch: Sequence[_Write[Any]], certain: int) -> list[_Outcome]:
        """Runs writes, those that are not certain until it takes too long or a prompt one waits.

        Savepoints cost a fifth of a write, and are there for those that fail.

        Raises:
            _OneFailed: One has failed, and there were no savepoints: all is undone.
        """
        if len(batch) == 1:  # its failure undoes the transaction
            return [_Outcome(value=batch[0].run(connection))]
        until = time.thread_time() + (PROMPT_RUN_S if batch[0].rank is Rank.PROMPT else LONGEST_RUN_S)
        run = self._run_in_savepoint if self._careful else self._run_freely
        self._careful -= self._careful > 0
        outcomes: list[_Outcome] = []
        for place, write in enumerate(batch):
            if place >= certain and (self._knocks or time.thread_time() > until):
                break
            outcomes.append(run(connection, write))
        return outcomes

    def _run_freely(self, connection: Connection, write: _Write[Any]) -> _Outcome:
        try:
            return _Outcome(value=write.run(connection))
        except BaseException as error:
            if self._is_lost(error):
                raise
            raise _OneFailed from error

    def _run_in_savepoint(self, connection: Connection, write: _Write[Any]) -> _Outcome:
        savepoint = connection.begin_nested()
        try:
            value = write.run(connection)
            savepoint.commit()
        except BaseException as error:
            # When the whole transaction is undone, no write of the batch may be reported as done.
            if self._is_lost(error) or self._backend.is_whole_transaction_undone(connection):
                raise
            if savepoint.is_active:
                savepoint.rollback()
            return _Outcome(error=self._translated(error))
        return _Outcome(value=value)

    # --- connection -----------------------------------------------------------------------------------------------
    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._backend.open_writer()
            self.is_displaced = False
            away_s = time.monotonic() - self._lost_at if self._lost_at is not None else 0.0
            _log.info("the database answers again", place=self._backend.place, away_s=round(away_s, 3))
        return self._connection

    def _is_lost(self, error: BaseException) -> bool:
        return isinstance(error, StartRefused) or self._backend.is_lost(error)

    def _waits_for(self, error: BaseException) -> bool:
        """Drops the lost connection and waits a moment; False when the batch has to be given up."""
        connection, self._connection = self._connection, None
        self.is_displaced = isinstance(error, FolderLocked)
        if connection is not None:
            _quietly(connection.invalidate)
            _quietly(connection.close)
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            _log.warning("the database does not answer", place=self._backend.place, problem=_first_line(error))
        if time.monotonic() - self._lost_at >= self._patience_s:
            return False
        return not self._closing.wait(RETRY_S)

    def _translated(self, error: BaseException) -> BaseException:
        return (isinstance(error, DBAPIError) and self._backend.answer(error)) or error


def _take(waiting: deque[_Write[Any]], batch: list[_Write[Any]], most: int) -> None:
    """Moves writes that somebody still waits for, who cannot withdraw them from now on."""
    while waiting and len(batch) < most:
        write = waiting.popleft()
        if write.future.running() or write.future.set_running_or_notify_cancel():
            batch.append(write)


def _given_up(*, is_doubtful: bool) -> ServiceError:
    certainty = "whether it was written is not known" if is_doubtful else "nothing was written"
    return ServiceError(
        Reason.DATABASE_UNAVAILABLE,
        f"the service's database does not answer; {certainty}: ask again with the same request id",
        metadata={"is_outcome_known": str(not is_doubtful).lower()},
    )


def _first_line(error: BaseException) -> str:
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _quietly(run: Callable[[], object]) -> None:
    """Runs a clean-up on a connection that may be broken; what it raises says nothing new."""
    try:
        run()
    except Exception:  # noqa: BLE001
        _log.debug("a clean-up of a lost connection failed", exc_info=True)
