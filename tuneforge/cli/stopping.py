"""What Ctrl-C says, command by command."""

import contextlib
from collections.abc import Iterator


class Stopped(Exception):
    """The user pressed Ctrl-C; the text says what was left and how to go on."""


@contextlib.contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Turns Ctrl-C inside the block into one line."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message) from None
