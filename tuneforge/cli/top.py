"""`tuneforge top`: nodes, the queue, shares and running jobs, live on a terminal, or once into a pipe."""

import contextlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tuneforge.cli.connection import ConnectedCommand, Connection

if TYPE_CHECKING:
    from rich.console import Console

    from tuneforge.cli.top_scene import Gathering, Scene

_SETTLE_S = 3.0
"""How long one frame waits for the events that there are."""
_PIPE_WIDTH = 120
_SEQUENCE = re.compile("\x1b[\\[O][0-9;]*[A-Za-z~]")
"""What arrow and function keys send."""
_LEAST_S = 0.3
"""Shortest pause between two frames, however much changes."""


@click.command(cls=ConnectedCommand)
@click.option("--once", is_flag=True, help="Print one frame and leave.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 60),
    default=2.0,
    show_default=True,
    help="Seconds between frames while nothing changes.",
)
@click.option("--width", type=click.IntRange(20, 1000), help="Characters of a line.  [default: the terminal's]")
@click.pass_obj
def top(connection: Connection, once: bool, every_s: float, width: int | None) -> None:
    """Show nodes, the queue, shares and running jobs, live. `q` leaves. A pipe gets one frame."""
    from rich.console import Console

    if math.isnan(every_s):
        raise click.BadParameter("is no number: use 0.2 to 60", param_hint="--every")
    from tuneforge.cli.top_scene import Gathering

    console = Console(width=width) if width else Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    with connection.client() as client:
        gathering = Gathering(client, client.scheduler_address)
        try:
            if once or not sys.stdout.isatty():
                _print_once(gathering, console)
            else:
                _show(gathering, console, every_s)
        finally:
            gathering.close()


def _print_once(gathering: "Gathering", console: "Console") -> None:
    from tuneforge.cli.top_picture import draw

    scene = gathering.gather()
    if scene.problem:
        raise click.ClickException(scene.problem)
    gathering.settle(_SETTLE_S)
    console.print(draw(gathering.gather(), console.width))


def _show(gathering: "Gathering", console: "Console", every_s: float) -> None:
    """Draws until `q` or Ctrl-C; a scheduler that is away is waited for, and the picture says so."""
    from rich.live import Live

    from tuneforge.cli.top_picture import draw

    latest: list[Scene] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            gathering.live.seen.clear()
            latest[:] = [gathering.gather()]
            stop.wait(_LEAST_S)
            gathering.live.seen.wait(every_s)

    asking = threading.Thread(target=ask, name="top-asking", daemon=True)
    asking.start()
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while "q" not in pressed(_LEAST_S):
                if latest:
                    live.update(draw(latest[0], console.width, console.height), refresh=True)
    except KeyboardInterrupt:
        pass
    finally:
        stop.set()
        gathering.live.close()


@contextlib.contextmanager
def _keys() -> "Iterator[_Pressed]":
    """Yields what waits for a key; where stdin is no terminal it only waits."""
    try:
        import termios
        import tty
    except ImportError:  # Windows: Ctrl-C leaves
        yield _Pressed(has_keys=False)
        return
    if not sys.stdin.isatty():
        yield _Pressed(has_keys=False)
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _Pressed(has_keys=True)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class _Pressed:
    def __init__(self, *, has_keys: bool) -> None:
        self._has_keys = has_keys

    def __call__(self, timeout_s: float) -> str:
        """Returns the keys that are pressed within a time, without arrows and the like; empty: none was."""
        if not self._has_keys:
            time.sleep(timeout_s)
            return ""
        import select

        ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
        # Past Python's buffer: what lies in that, the rest of an arrow key or a q behind it, `select` does not see.
        return keys_in(os.read(sys.stdin.fileno(), 1024)) if ready else ""


def keys_in(content: bytes) -> str:
    """Returns what was typed, in lower case; a terminal that is gone leaves as `q` does."""
    return _SEQUENCE.sub("", content.decode("utf-8", "replace")).lower() if content else "q"
