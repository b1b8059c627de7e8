"""What Ctrl-C says, command by command."""

import contextlib
from collections.abc import Iterator

from tuneforge.errors import Unavailable


class Stopped(Exception):
    """The user pressed Ctrl-C; the text says what was left and how to go on."""


@contextlib.contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Turns Ctrl-C inside the block into one line; a service that went away is told with the same advice.

    Args:
        message: `stopped: <what was left, and how to go on>`.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message) from None
    except Unavailable as error:
        note_advice(error, message)
        raise


def note_advice(error: Unavailable, message: str) -> None:
    """Adds to an error what `stopped: ...` says of what was left, as a sentence of its own."""
    advice = message.removeprefix("stopped: ")
    if advice != message:
        error.add_note(f"{advice[0].upper()}{advice[1:]}.")
