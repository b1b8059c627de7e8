"""A stream that is opened again from its last token whenever it breaks.

Whatever ends it - UNAVAILABLE, a draining server, a reset connection, silence longer than a few heartbeats - is treated
alike: it is opened again from the last resume token, after a jittered wait that starts anew with each message that
brings something.
"""

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import grpc

from tuneforge._connections import Service
from tuneforge._read_aside import read_aside
from tuneforge._several import SeveralChannels
from tuneforge._transport import Backoff, is_retriable, typed_error
from tuneforge.errors import Reason, TuneforgeError, Unavailable

# What gRPC itself says when a connection dies in the middle of a stream; a service's own INTERNAL carries an ErrorInfo.
BROKEN_STREAM = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a watch behaves."""

    silence_s: float = 45.0
    """A stream that brings nothing, not even a heartbeat (every 10 to 15 seconds), for so long is opened again."""
    give_up_after_s: float = 3600.0
    """Time without any answer after which the watch raises; before its first answer ever it is that of a call."""
    max_batch: int = 100
    """Most events in one message, 1 to 1000."""
    on_break: Callable[[TuneforgeError], None] | None = None
    """Told why, each time that the stream broke and is about to be opened again."""


class _Message(Protocol):
    @property
    def resume_token(self) -> str: ...


Message = TypeVar("Message", bound=_Message)


class ResumedStream(Generic[Message]):
    """Yields the messages of one stream after another until it is closed.

    Args:
        service: Who is asked.
        open_at: Opens the stream at a resume token; empty: at its beginning.
        token: Where to begin.
        options: Patience and what to do at a break.
        is_progress: Tells messages that bring something, so that the waits start anew; by default all do.
        cures: Told of a refusal; true: what it changed makes another stream from `token` worth a try.
    """

    def __init__(
        self,
        service: Service[Any],
        open_at: Callable[[str], Any],
        *,
        token: str = "",
        options: WatchOptions | None = None,
        is_progress: Callable[[Message], bool] = lambda _: True,
        cures: Callable[[TuneforgeError], bool] = lambda _: False,
    ) -> None:
        self._service = service
        self._is_progress = is_progress
        self._cures = cures
        self._open_at = open_at
        self._options = options or WatchOptions()
        self._stream: Any = None
        self.token = token
        """Good to go on after the message that was yielded last."""
        self.is_closed = False

    def close(self) -> None:
        """Ends it. May be called from another thread."""
        self.is_closed = True
        if self._stream is not None:
            self._stream.cancel()

    def messages(self) -> Generator[Message, None, None]:
        """Yields messages; the token moves after each one was used.

        Raises:
            TuneforgeError: The request or the token is refused, or nobody answers for longer than the patience.
        """
        backoff = Backoff(self._service.retry)
        patient = replace(self._service.retry, budget_s=self._options.give_up_after_s)
        is_known = False
        while not self.is_closed:
            try:
                for message in self._open():
                    if not is_known:
                        backoff, is_known = Backoff(patient), True
                    yield message
                    self.token = message.resume_token or self.token
                    if self._is_progress(message):
                        backoff.progress()
                error: TuneforgeError = Unavailable(Reason.DRAINING, f"{self._service.peer} is shutting down")
            except grpc.RpcError as rpc_error:
                if self.is_closed:
                    return
                error = self._resumable(rpc_error)
            finally:
                if self._stream is not None:
                    self._stream.cancel()
            if self._options.on_break is not None:
                self._options.on_break(error)
            backoff.wait_or_raise(error)

    def _open(self) -> Iterator[Message]:
        """Yields the messages of one stream; cancels it when it falls silent."""
        channel = self._service.channel
        leave = channel.leaving() if isinstance(channel, SeveralChannels) else None
        stream = self._stream = self._open_at(self.token)

        def give_up() -> None:
            if leave is not None:  # what is cancelled here has no error that says so
                leave()
            stream.cancel()

        if self.is_closed:  # meanwhile, by another thread, which saw the stream before this one
            stream.cancel()
        watchdog = Watchdog(self._options.silence_s, give_up)
        try:
            watchdog.touch()
            with closing(read_aside(stream)) as messages:
                for message in messages:
                    watchdog.pause()
                    yield message
                    watchdog.touch()
        finally:
            watchdog.stop()

    def _resumable(self, rpc_error: grpc.RpcError) -> TuneforgeError:
        """Returns why the stream broke, or raises when opening it again would not help."""
        error = typed_error(rpc_error, self._service.peer)
        code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
        is_bare = not error.request_id and not error.metadata
        if self._cures(error) or is_retriable(rpc_error) or (is_bare and code in BROKEN_STREAM):
            return error
        raise error from None


class Watchdog:
    """Calls `bark` when nothing touches it for a while; a thread of its own, because a read of a stream cannot wait."""

    def __init__(self, silence_s: float, bark: Callable[[], object]) -> None:
        self._silence_s = silence_s
        self._bark = bark
        self._due = math.inf
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="tuneforge-watchdog", daemon=True).start()

    def touch(self) -> None:
        """Starts the time anew."""
        self._due = time.monotonic() + self._silence_s

    def pause(self) -> None:
        """Stops the time: the reader is busy with what came."""
        self._due = math.inf

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(min(self._silence_s, max(self._due - time.monotonic(), 0.001))):
            if time.monotonic() >= self._due:
                self._bark()
                return
