"""Programs of others as children of this process: as which user they run, and that they end with us."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNPRIVILEGED = ("postgres", "nobody")


class StoreFailed(Exception):
    """A server of the suite's data could not be started; the text says which one, why, and what to do."""


@dataclass(frozen=True, slots=True)
class RunsAs:
    """The user of a program that refuses to run as root; without an id it is whoever we are."""

    uid: int | None = None
    gid: int | None = None

    def run(self, command: Sequence[str], end: signal.Signals | None = None) -> list[str]:
        """Returns the command that becomes `command` as this user, and gets `end` when its parent ends.

        `setpriv` does that, after the exec: a `Popen` that changes the user forks, and gRPC's threads, started anew in
        the child of a fork, hang there or take its files for theirs.

        Raises:
            StoreFailed: the user is another one and there is no `setpriv`.
        """
        setpriv = shutil.which("setpriv")
        if setpriv is None and self.uid is not None:
            raise StoreFailed("as root, PostgreSQL needs `setpriv` (of util-linux) to run as another user; install it")
        if setpriv is None:
            return list(command)
        options = [] if self.uid is None else [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        options += [] if end is None else [f"--pdeathsig={end.name.removeprefix('SIG')}"]
        return [setpriv, *options, *command] if options else list(command)

    def give(self, path: Path) -> None:
        """Makes the user the owner of a file or folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def unprivileged() -> RunsAs:
    """Returns this process' user, or one without rights when this is root."""
    if os.geteuid() != 0:
        return RunsAs()
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunsAs(entry.pw_uid, entry.pw_gid)
    raise StoreFailed(f"as root, PostgreSQL needs a user without rights, and there is none of {_UNPRIVILEGED}")


def check_reachable(folder: Path, user: RunsAs) -> None:
    """Refuses a folder that another user cannot get to.

    Raises:
        StoreFailed: one of the folders above it is closed to others.
    """
    if user.uid is None:
        return
    for parent in folder.absolute().parents:
        found = parent.stat()
        if not found.st_mode & 0o001 and found.st_uid != user.uid:
            name = pwd.getpwuid(user.uid).pw_name
            raise StoreFailed(
                f"this is root, so PostgreSQL runs as {name}, who cannot enter {parent}; use a data folder that "
                "everybody can reach, or start as an ordinary user"
            )


def start_program(
    command: Sequence[str], log: Path, *, user: RunsAs, variables: Mapping[str, str] | None = None, end: signal.Signals
) -> subprocess.Popen[bytes]:
    """Starts a server; the kernel sends it `end` when this process ends in any way.

    Args:
        command: Program and arguments.
        log: File that its output is added to.
        user: Who it runs as.
        variables: Environment on top of ours.
        end: Signal by which it ends.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            user.run(command, end),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | dict(variables or {}),
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it after the services
        )


def end_program(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> None:
    """Ends a program with one signal after the other, each with its seconds, at last with SIGKILL."""
    for number, patience_s in steps:
        process.send_signal(number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def last_lines(log: Path, count: int = 5) -> str:
    """Returns the end of a log."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
