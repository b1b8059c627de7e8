"""A service that was started by a launcher ends with it, even when the launcher is killed.

Done by the service itself, after exec: code between fork and exec is not safe in a launcher that has threads.
"""

import ctypes
import os
import signal

END_WITH_PARENT = "TUNEFORGE_END_WITH_PARENT"
"""Environment variable: process id of the launcher whose end is a SIGTERM for the service. Unset: none."""

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Asks the kernel for a SIGTERM at the launcher's end; sends it at once when the launcher is gone already.

    The launcher's *thread* that started the service counts: start services from one that lives on.
    """
    launcher = os.environ.pop(END_WITH_PARENT, "")
    if not launcher:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGTERM)


def forget_parent() -> None:
    """Takes that back once the service has begun to end: the kernel may say it for each thread of the launcher."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
