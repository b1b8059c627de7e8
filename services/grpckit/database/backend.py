"""What a kind of database must offer so that `Database` and `Writer` can be the same for all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from services.grpckit.errors import ServiceError
from services.grpckit.folder_lock import StartRefused

READERS = 4
"""Threads that read at once, each with a connection of its own."""


class SchemaTooNew(StartRefused):
    """The database was written by a newer release than this one."""


class Backend(Protocol):
    """One kind of database. The writer's connection is used by one thread only, readers' connections by several."""

    @property
    def place(self) -> str:
        """Which database it is, for people; without secrets."""

    @property
    def longest_belief_s(self) -> float:
        """Seconds for which what was read may be believed while we have committed nothing.

        Infinite where nobody else can have written, else a bound for the time until a lost lock is noticed.
        """

    def open_writer(self) -> Connection:
        """Returns the only connection that writes; whoever has it keeps every other process from getting one.

        Raises:
            StartRefused: another process has it, or the database must not be used.
            DBAPIError: the database does not answer.
        """

    def open_readers(self) -> Engine:
        """Returns connections that see one snapshot a transaction and cannot change anything."""

    def claim(self, connection: Connection, service: str) -> None:
        """Writes down whose database it is, at the first start.

        Raises:
            StartRefused: it belongs to another service, or holds something else.
        """

    def without_limits(self, connection: Connection) -> AbstractContextManager[None]:
        """Lifts limits on the time of statements, for migrations."""

    def mark(self, connection: Connection) -> str:
        """Leaves a mark in the running transaction by which `is_marked` can tell later whether it was committed."""

    def is_marked(self, connection: Connection, mark: str) -> bool:
        """Returns whether the transaction with this mark was committed; final, since no other one has the writer."""

    def is_whole_transaction_undone(self, connection: Connection) -> bool:
        """Returns whether an error has ended the running transaction, and not only the statement."""

    def is_lost(self, error: BaseException) -> bool:
        """Returns whether an error says that the connection is gone, or that no new one is given for the moment."""

    def answer(self, error: DBAPIError, *, is_read: bool = False) -> ServiceError | None:
        """Returns what a caller is told of an error that no code of ours has caused; None for others.

        Args:
            error: As it came.
            is_read: It came to a reader: that it may not write is no news then.
        """

    def refusal(self, error: DBAPIError) -> StartRefused:
        """Returns why a start with this error is refused."""

    def close(self) -> None:
        """Closes all connections."""
