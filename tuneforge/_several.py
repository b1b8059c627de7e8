"""One service at several addresses, of which one answers: calls go to that one, and on to the next when it is gone.

gRPC itself takes a list of addresses as `ipv4:...` only: no host names, and one name for all certificates. So there is
one channel for each address here. Whoever repeats a call or opens a stream again, which all of the SDK does, reaches
the next address, and so whoever leads after a take-over; a scheduler that stands by refuses every call.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

_LEAVES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
"""After these the next call is made elsewhere: nobody is there, it stands by, it is shutting down, or it hangs."""


class SeveralChannels(grpc.Channel):
    """The channels of one service as one. Its methods are called; they have no `future` and no `with_call`.

    Args:
        channels: One for each address, at least one, in the order in which they are tried.
    """

    def __init__(self, channels: Sequence[grpc.Channel]) -> None:
        self._channels = tuple(channels)
        self._turn = 0

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_unary", args, options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_stream", args, options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_unary", args, options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_stream", args, options)

    def _method(self, kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
        methods = [getattr(channel, kind)(*args, **options) for channel in self._channels]

        def call(*given: Any, **more: Any) -> Any:
            turn = self._turn
            try:
                answer = methods[turn](*given, **more)
            except grpc.RpcError as error:
                self._note(turn, error)
                raise
            if kind.endswith("_stream"):
                answer.add_done_callback(lambda ended: self._note(turn, ended))
            return answer

        return call

    def _note(self, turn: int, ended: Any) -> None:
        if ended.code() in _LEAVES:
            self._leave(turn)

    def _leave(self, turn: int) -> None:
        # Of many calls that break at once the first one moves on, the others find that it has.
        if turn == self._turn:
            self._turn = (turn + 1) % len(self._channels)

    def leaving(self) -> Callable[[], None]:
        """Returns what to call when one that is made now hangs without an end of its own."""
        return partial(self._leave, self._turn)

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = None
    ) -> None:
        self._channels[self._turn].subscribe(callback, try_to_connect or False)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        for channel in self._channels:
            channel.unsubscribe(callback)

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
