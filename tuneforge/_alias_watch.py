"""A watch of aliases that survives restarts of the registry and breaks of the network: every move once, in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc

from tuneforge._connections import Service
from tuneforge._transport import Backoff, is_retriable, typed_error
from tuneforge._watch import BROKEN_STREAM, Watchdog, WatchOptions
from tuneforge.alias_values import Alias, AliasChange, alias_from_proto, change_from_proto
from tuneforge.errors import InvalidArgument, Reason, TuneforgeError, Unavailable
from tuneforge.v1 import aliases_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub


class AliasWatch(Iterator[AliasChange]):
    """Moves of aliases from the cursor on; it never ends by itself. Close it, or use `with`.

    Without a cursor the snapshot is read when the watch is made: every move after that comes, whenever it is read.
    """

    def __init__(
        self,
        registry: Service[RegistryServiceStub],
        parent: str,
        on_snapshot: Callable[[Sequence[Alias]], None] | None = None,
        *,
        cursor: str = "",
        options: WatchOptions | None = None,
    ) -> None:
        self._registry = registry
        self._parent = parent
        self._on_snapshot = on_snapshot
        self._options = options or WatchOptions()
        self._seen, self._token = _parse_cursor(cursor)
        self._is_closed = False
        self._stream: Any = None
        self._changes = self._run()
        if not cursor:
            next(self._changes)

    @property
    def cursor(self) -> str:
        """Where the watch stands, after the move that came last: a later watch that is given it goes on from there."""
        return f"{self._seen}:{self._token}"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AliasChange:
        while not self._is_closed:
            if (change := next(self._changes)) is not None:
                return change
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch. May be called from another thread."""
        self._is_closed = True
        if self._stream is not None:
            self._stream.cancel()

    def _run(self) -> Iterator[AliasChange | None]:
        """Yields moves, and None after each whole snapshot."""
        backoff = Backoff(self._registry.retry)
        patient = replace(self._registry.retry, budget_s=self._options.give_up_after_s)
        is_known = False
        while not self._is_closed:
            snapshot: list[Alias] = []
            try:
                for response in self._open():
                    if not is_known:
                        backoff, is_known = Backoff(patient), True
                    yield from self._take(response, snapshot)
                    backoff.progress()
                error: TuneforgeError = Unavailable(Reason.DRAINING, f"{self._registry.peer} is shutting down")
            except grpc.RpcError as rpc_error:
                if self._is_closed:
                    return
                error = self._resumable(rpc_error)
            finally:
                if self._stream is not None:
                    self._stream.cancel()
            if self._options.on_break is not None:
                self._options.on_break(error)
            backoff.wait_or_raise(error)

    def _open(self) -> Iterator[pb.WatchAliasesResponse]:
        """Yields the messages of one stream; cancels it when it falls silent."""
        request = pb.WatchAliasesRequest(
            parent=self._parent, resume_token=self._token, max_batch=self._options.max_batch
        )
        self._stream = self._registry.stub.WatchAliases(request)
        watchdog = Watchdog(self._options.silence_s, self._stream.cancel)
        try:
            watchdog.touch()
            for response in self._stream:
                watchdog.pause()
                yield response
                watchdog.touch()
        finally:
            watchdog.stop()

    def _take(self, response: pb.WatchAliasesResponse, snapshot: list[Alias]) -> Iterator[AliasChange | None]:
        if response.WhichOneof("payload") == "snapshot":
            # Told when it is whole: a stream that breaks in its middle begins with another one.
            snapshot.extend(map(alias_from_proto, response.snapshot.aliases))
            if response.snapshot.is_complete and self._on_snapshot is not None:
                self._on_snapshot(tuple(snapshot))
        # The token stands behind all moves of the message, so it is taken after the last one; until then the moves that
        # were yielded are counted, and a watch that begins at the cursor leaves them out.
        for number, message in enumerate(response.changes.changes, start=1):
            if number > self._seen:
                self._seen = number
                yield change_from_proto(message)
        if response.resume_token:
            self._token = response.resume_token
            self._seen = max(self._seen - len(response.changes.changes), 0)
        if response.snapshot.is_complete:
            yield None

    def _resumable(self, rpc_error: grpc.RpcError) -> TuneforgeError:
        """Returns why the stream broke, or raises when opening it again would not help."""
        error = typed_error(rpc_error, self._registry.peer)
        code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
        is_bare = not error.request_id and not error.metadata
        if is_retriable(rpc_error) or (is_bare and code in BROKEN_STREAM):
            return error
        raise error from None


def _parse_cursor(cursor: str) -> tuple[int, str]:
    number, _, token = cursor.partition(":")
    if not cursor:
        return 0, ""
    if not number.isdigit():
        message = f"{cursor[:100]!r} is no cursor of a watch of aliases"
        raise InvalidArgument(Reason.INVALID_RESUME_TOKEN, message, cure="Give `AliasWatch.cursor`, or none.")
    return int(number), token
