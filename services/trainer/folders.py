"""Where things lie in a trainer's data folder, and how a small file is written so that it is whole or not there.

- `jobs/{project}/{job}/checkpoints/`: the job's checkpoints on this node; they outlive its attempts
- `jobs/{project}/{job}/attempts/{n}-{rank}/`: one attempt: request, orders, identity of its worker, spool, output
- `jobs/{project}/{job}/ended/{n}-{rank}.json`: what is left of an attempt whose end was acknowledged
- `results/{project}/{job}/{n}/`: the artifact of an attempt that no scheduler asked for
- `cache/`: artifacts by digest
- `tokens/`: rows as tokens, see `engine/token_cache.py`
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, durably."""
    missing = [folder, *folder.parents]
    missing = missing[: next(index for index, parent in enumerate(missing) if parent.is_dir())]
    for parent in reversed(missing):
        parent.mkdir(mode=0o700, exist_ok=True)
        sync_folder(parent.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file that is whole or not there, also after a power cut; only its owner may read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object durably."""
    write_durably(path, json.dumps(content, sort_keys=True).encode())


def create_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Writes a JSON object durably unless the file exists; tells whether it did, to exactly one of several callers."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_durably(temporary, json.dumps(content, sort_keys=True).encode())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; `None` when there is no such file."""
    try:
        return cast("dict[str, Any]", json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    """The files of one attempt."""

    path: Path
    """`jobs/{project}/{job}/attempts/{n}-{rank}`."""

    @property
    def request(self) -> Path:
        """The `StartAttemptRequest` as accepted, without the manager's secret."""
        return self.path / "request.binpb"

    @property
    def assignment(self) -> Path:
        """What the agent decided: token, slot, device, threads, folders (`orders.Assignment`)."""
        return self.path / "assignment.json"

    @property
    def worker(self) -> Path:
        """Identity of the worker's process; whoever creates it owns the attempt's spool."""
        return self.path / "worker.json"

    @property
    def stop(self) -> Path:
        """How and until when the attempt is to stop."""
        return self.path / "stop.json"

    @property
    def end(self) -> Path:
        """How the attempt ended, as far as its spool does not say."""
        return self.path / "end.json"

    @property
    def rendezvous(self) -> Path:
        """Where the worker of rank 0 waits for those of the other nodes."""
        return self.path / "rendezvous.json"

    @property
    def spool(self) -> Path:
        """Its events."""
        return self.path / "spool"

    @property
    def output(self) -> Path:
        """The artifact while it is made."""
        return self.path / "output"

    @property
    def pulse(self) -> Path:
        """When the worker last did something (`pulse.py`)."""
        return self.path / "pulse"

    @property
    def group(self) -> Path:
        """Folder of the control group of the worker; only where it has one."""
        return self.path / "group"

    @property
    def stacks(self) -> Path:
        """What the worker's threads were doing when it made no progress."""
        return self.path / "stacks.txt"

    @property
    def log(self) -> Path:
        """Standard output and error of the worker."""
        return self.path / "worker.log"


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The data folder of one trainer."""

    root: Path
    """Made by `make`."""

    def make(self) -> None:
        """Makes what must be there."""
        for folder in (self.root / "jobs", self.cache):
            make_folder(folder)

    @property
    def cache(self) -> Path:
        """Artifacts by digest."""
        return self.root / "cache"

    @property
    def tokens(self) -> Path:
        """Rows as tokens."""
        return self.root / "tokens"

    def job(self, project: str, job: str) -> Path:
        """Folder of a job."""
        return self.root / "jobs" / project / job

    def attempt(self, project: str, job: str, key: str) -> AttemptFolder:
        """Folder of an attempt; `key` is `{n}-{rank}`."""
        return AttemptFolder(self.job(project, job) / "attempts" / key)

    def ended(self, project: str, job: str, key: str) -> Path:
        """What is left of an attempt whose end was acknowledged."""
        return self.job(project, job) / "ended" / f"{key}.json"

    def checkpoints(self, project: str, job: str) -> Path:
        """Checkpoints of a job."""
        return self.job(project, job) / "checkpoints"

    def result(self, project: str, job: str, attempt: int) -> Path:
        """Artifact of an attempt that no scheduler asked for."""
        return self.root / "results" / project / job / str(attempt)

    def attempts(self) -> list[AttemptFolder]:
        """Returns the folders of all attempts, also of such whose start was not written down whole."""
        return [AttemptFolder(path) for path in sorted((self.root / "jobs").glob("*/*/attempts/*"))]
