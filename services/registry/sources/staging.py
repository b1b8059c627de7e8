"""Where an import keeps what has arrived until its version is made: resumable by the same call, swept when forgotten.

    imports/<project>/<key>/<file>.part     a file that arrives, with `<file>.tag` beside it
    imports/<project>/<key>/journal.jsonl   the files of it that are stored as blobs, so that they are not fetched twice

The key is a digest of what was asked for; the address itself is not written down here, since it may carry a signature.
"""

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file of an import that is stored as a blob."""

    path: str
    tag: str
    sha256: str
    size_bytes: int


class Staging:
    """The folder of imports; all methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def prepare(self, *, kept_s: float) -> int:
        """Makes the folder and removes what nobody has added to for long; returns how many imports.

        Args:
            kept_s: Age in seconds from which on an import is removed.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - kept_s
        stale = [
            place
            for place in self._folder.glob("*/*")
            if max((file.stat().st_mtime for file in place.iterdir()), default=place.stat().st_mtime) < oldest
        ]
        for place in stale:
            shutil.rmtree(place)
        return len(stale)

    def place(self, project: str, *asked: str) -> Path:
        """Returns the folder of one import, which need not exist.

        Args:
            project: Id of the project.
            asked: Everything that decides which bytes are fetched.
        """
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
        return self._folder / project / key


def read_journal(place: Path) -> dict[str, Stored]:
    """Returns path -> what is stored; a line that a crash cut off ends it."""
    found: dict[str, Stored] = {}
    try:
        lines = (place / _JOURNAL).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            stored = Stored(**json.loads(line))
        except (ValueError, TypeError):
            break
        found[stored.path] = stored
    return found


def note_stored(place: Path, stored: Stored, part: Path) -> None:
    """Writes down that a file is stored as a blob, and removes its part."""
    with (place / _JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(asdict(stored)) + "\n")
    part.unlink(missing_ok=True)
    part.with_suffix(".tag").unlink(missing_ok=True)


def discard(place: Path) -> None:
    """Removes all that an import left."""
    shutil.rmtree(place, ignore_errors=True)
