"""A stream that is opened again from its last token whenever it breaks; for streams that have no end of their own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import grpc

from tuneforge._connections import Service
from tuneforge._transport import Backoff, is_retriable, typed_error
from tuneforge._watch import BROKEN_STREAM, Watchdog, WatchOptions
from tuneforge.errors import Reason, TuneforgeError, Unavailable
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub


class _Message(Protocol):
    @property
    def resume_token(self) -> str: ...


Message = TypeVar("Message", bound=_Message)


class ResumedStream(Generic[Message]):
    """Yields the messages of one stream after another until it is closed.

    Args:
        scheduler: Who is asked.
        open_at: Opens the stream at a resume token; empty: at its beginning.
        token: Where to begin.
        options: Patience and what to do at a break.
    """

    def __init__(
        self,
        scheduler: Service[SchedulerServiceStub],
        open_at: Callable[[str], Any],
        *,
        token: str = "",
        options: WatchOptions | None = None,
    ) -> None:
        self._scheduler = scheduler
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

    def messages(self) -> Iterator[Message]:
        """Yields messages; the token moves after each one was used.

        Raises:
            TuneforgeError: The request or the token is refused, or nobody answers for longer than the patience.
        """
        backoff = Backoff(self._scheduler.retry)
        patient = replace(self._scheduler.retry, budget_s=self._options.give_up_after_s)
        is_known = False
        while not self.is_closed:
            try:
                for message in self._open():
                    if not is_known:
                        backoff, is_known = Backoff(patient), True
                    yield message
                    self.token = message.resume_token or self.token
                    backoff.progress()
                error: TuneforgeError = Unavailable(Reason.DRAINING, f"{self._scheduler.peer} is shutting down")
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
        self._stream = self._open_at(self.token)
        watchdog = Watchdog(self._options.silence_s, self._stream.cancel)
        try:
            watchdog.touch()
            for message in self._stream:
                watchdog.pause()
                yield message
                watchdog.touch()
        finally:
            watchdog.stop()

    def _resumable(self, rpc_error: grpc.RpcError) -> TuneforgeError:
        error = typed_error(rpc_error, self._scheduler.peer)
        code = rpc_error.code() if isinstance(rpc_error, grpc.Call) else None
        is_bare = not error.request_id and not error.metadata
        if is_retriable(rpc_error) or (is_bare and code in BROKEN_STREAM):
            return error
        raise error from None
