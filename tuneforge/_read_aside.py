"""A stream that is read in a thread of its own, so that Ctrl-C never strikes in the middle of gRPC.

An exception that comes between two steps of gRPC's own Python code leaves a lock of it taken, or one released twice:
the watch then ends with a fault of gRPC in place of what the user asked for, or its process never ends. Who waits here
waits for a queue, which is one step of the interpreter.
"""

import _thread
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import TypeVar

Message = TypeVar("Message")

_AHEAD = 2
"""Messages that are read at most before they are asked for."""


def read_aside(stream: Iterator[Message]) -> Generator[Message]:
    """Yields the messages of a stream, and raises what it raises; to be closed, and the stream cancelled then."""
    arrived: SimpleQueue[tuple[Message] | BaseException] = SimpleQueue()
    wanted: SimpleQueue[bool] = SimpleQueue()

    def read() -> None:
        try:
            while wanted.get():
                arrived.put((next(stream),))
        except BaseException as error:  # noqa: BLE001 - it is for who waits
            arrived.put(error)

    for _ in range(_AHEAD):
        wanted.put(True)
    _thread.start_new_thread(read, ())  # `threading` would wait for its start, and Ctrl-C can strike there too
    try:
        while True:
            came = arrived.get()
            if isinstance(came, StopIteration):
                return
            if isinstance(came, BaseException):
                raise came
            yield came[0]
            wanted.put(True)
    finally:
        wanted.put(False)
