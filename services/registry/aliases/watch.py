"""`WatchAliases`: a snapshot, then every move once and in order, from one cursor and on one code path.

A watcher holds a number, never a queue: a slow reader costs one message in memory and reads the log on from where it
is. The wake-up is a hint only; whoever misses one looks at the log after the next heartbeat's time.
"""

import asyncio
import base64
import binascii
import hashlib
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.grpckit.database import Database
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.registry.aliases import log, wire
from services.registry.aliases.log import Scope
from services.registry.collections import get_collection
from tuneforge.names import ModelName, ProjectName
from tuneforge.v1 import aliases_pb2 as pb

HEARTBEAT_S = 12.0
"""Longest silence of a watch in seconds: the SDK takes one as broken after 45."""
DEFAULT_BATCH = 100
LARGEST_BATCH = 1000
SNAPSHOT_PART = 200
"""Aliases in one message of a snapshot: far below the limit of 4 MiB."""

_FORM = struct.Struct(">B12sQ")
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What a watcher asks for."""

    parent: str
    resume_token: str = ""
    max_batch: int = 0
    """Most moves in one message, 1 to 1000; 0: 100."""


class AliasFeed:
    """Serves watchers.

    Args:
        database: With the log.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = asyncio.Event()
        self._is_draining = False

    def wake(self) -> None:
        """Tells the watchers that a move may have been committed."""
        self._changed.set()
        self._changed = asyncio.Event()

    def drain(self) -> None:
        """Ends every watch; its token is good at the next start."""
        self._is_draining = True
        self.wake()

    async def watch(self, request: WatchRequest) -> AsyncGenerator[pb.WatchAliasesResponse, None]:
        """Yields the messages of one watch.

        Raises:
            ServiceError: Before the first one: `NOT_FOUND`, `INVALID_FIELD`, `INVALID_RESUME_TOKEN` or
                `CURSOR_OUT_OF_RANGE`.
        """
        if request.max_batch > LARGEST_BATCH:
            problem = f"is {request.max_batch}: use 1 to {LARGEST_BATCH}, or 0 for {DEFAULT_BATCH}"
            raise invalid_fields([FieldViolation("max_batch", problem)])
        scope = scope_of(request.parent)
        if isinstance(scope, ModelName):
            await self._database.read(lambda c: get_collection(c, scope))
        newest, _ = await self._database.read(lambda c: log.latest(c, log.project_of(scope)))
        cursor = newest
        if request.resume_token:
            cursor = read_token(request.resume_token, request.parent)
            if cursor > newest:
                raise ServiceError(
                    Reason.CURSOR_OUT_OF_RANGE,
                    f"the resume token stands at move {cursor}, the log of {request.parent} ends at {newest}",
                    metadata={"name": request.parent, "newest": str(newest)},
                )
        else:
            async for message in self._snapshot(scope, request.parent, cursor):
                yield message
        async for message in self._follow(scope, request, cursor):
            yield message

    async def _snapshot(
        self, scope: Scope, parent: str, position: int
    ) -> AsyncGenerator[pb.WatchAliasesResponse, None]:
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            start = after
            aliases, after = await self._database.read(
                lambda c, start=start: log.aliases_at(c, scope, position, start, SNAPSHOT_PART)  # type: ignore[misc]
            )
            snapshot = pb.AliasSnapshot(aliases=map(wire.alias_to_proto, aliases), is_complete=after is None)
            token = write_token(parent, position) if after is None else ""
            yield pb.WatchAliasesResponse(snapshot=snapshot, resume_token=token)

    async def _follow(
        self, scope: Scope, request: WatchRequest, cursor: int
    ) -> AsyncGenerator[pb.WatchAliasesResponse, None]:
        most = request.max_batch or DEFAULT_BATCH
        while True:
            changed = self._changed  # taken before the log is read, or a move in between would be slept through
            token = write_token(request.parent, cursor)
            if self._is_draining:
                yield pb.WatchAliasesResponse(end=pb.AliasWatchEnd(), resume_token=token)
                return
            start = cursor
            changes, newest = await self._database.read(
                lambda c, start=start: (  # type: ignore[misc]
                    log.changes_after(c, scope, start, most),
                    log.latest(c, log.project_of(scope))[0],
                )
            )
            # What was left out is of other models: the token may stand behind it.
            cursor = changes[-1].position if len(changes) == most else newest
            if changes:
                batch = pb.AliasChanges(changes=map(wire.alias_change_to_proto, changes))
                yield pb.WatchAliasesResponse(changes=batch, resume_token=write_token(request.parent, cursor))
            elif not await self._news(changed):
                yield pb.WatchAliasesResponse(
                    heartbeat=pb.AliasWatchHeartbeat(), resume_token=write_token(request.parent, cursor)
                )

    async def _news(self, changed: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await changed.wait()
        except TimeoutError:
            return False
        return True


def scope_of(parent: str) -> Scope:
    """Returns the project or the model that is watched.

    Raises:
        InvalidName: It is neither.
    """
    return ModelName.parse(parent) if "/models/" in parent else ProjectName.parse(parent).project


def write_token(parent: str, position: int) -> str:
    """Returns the token that means: everything up to this move was received."""
    body = _FORM.pack(_VERSION, _owner(parent), position)
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def read_token(text: str, parent: str) -> int:
    """Returns the position in a token.

    Raises:
        ServiceError: `INVALID_RESUME_TOKEN`: it is malformed, or was given for another parent.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, owner, position = _FORM.unpack(raw)
    except (binascii.Error, ValueError, struct.error):
        version, owner, position = 0, b"", 0
    if version != _VERSION or owner != _owner(parent):
        raise ServiceError(
            Reason.INVALID_RESUME_TOKEN,
            f"the resume token was not given by a watch of {parent}",
            metadata={"name": parent},
        )
    return int(position)


def _owner(parent: str) -> bytes:
    return hashlib.sha256(f"WatchAliases {parent}".encode()).digest()[:12]
