"""A watch of aliases that survives restarts of the registry and breaks of the network: every move once, in order."""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from tuneforge._connections import Service
from tuneforge._resumed_stream import ResumedStream, WatchOptions
from tuneforge.alias_values import Alias, AliasChange, alias_from_proto, change_from_proto
from tuneforge.errors import InvalidArgument, Reason
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
        self._max_batch = (options or WatchOptions()).max_batch
        self._seen, token = _parse_cursor(cursor)
        self._snapshot: list[Alias] = []
        self._stream: ResumedStream[pb.WatchAliasesResponse] = ResumedStream(
            registry, self._open, token=token, options=options
        )
        self._changes = self._run()
        if not cursor:
            next(self._changes)

    @property
    def cursor(self) -> str:
        """Where the watch stands, after the move that came last: a later watch that is given it goes on from there."""
        return f"{self._seen}:{self._stream.token}"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AliasChange:
        while not self._stream.is_closed:
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
        self._stream.close()

    def _run(self) -> Iterator[AliasChange | None]:
        """Yields moves, and None after each whole snapshot."""
        for response in self._stream.messages():
            yield from self._take(response)

    def _open(self, token: str) -> Any:
        self._snapshot = []  # a stream that broke in the middle of one begins with another one
        request = pb.WatchAliasesRequest(parent=self._parent, resume_token=token, max_batch=self._max_batch)
        return self._registry.stub.WatchAliases(request)

    def _take(self, response: pb.WatchAliasesResponse) -> Iterator[AliasChange | None]:
        if response.WhichOneof("payload") == "snapshot":
            self._snapshot.extend(map(alias_from_proto, response.snapshot.aliases))
            if response.snapshot.is_complete and self._on_snapshot is not None:
                self._on_snapshot(tuple(self._snapshot))
        # The token stands behind all moves of the message, so it is taken after the last one; until then the moves that
        # were yielded are counted, and a watch that begins at the cursor leaves them out.
        for number, message in enumerate(response.changes.changes, start=1):
            if number > self._seen:
                self._seen = number
                yield change_from_proto(message)
        if response.resume_token:
            self._stream.token = response.resume_token
            self._seen = max(self._seen - len(response.changes.changes), 0)
        if response.snapshot.is_complete:
            yield None


def _parse_cursor(cursor: str) -> tuple[int, str]:
    number, _, token = cursor.partition(":")
    if not cursor:
        return 0, ""
    if not number.isdigit():
        message = f"{cursor[:100]!r} is no cursor of a watch of aliases"
        raise InvalidArgument(Reason.INVALID_RESUME_TOKEN, message, cure="Give `AliasWatch.cursor`, or none.")
    return int(number), token
