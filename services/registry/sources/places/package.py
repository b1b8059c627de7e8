"""Files that an installed Python distribution ships."""

from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from services.registry.sources.addresses import PackageAddress
from services.registry.sources.faults import Code, SourceFault
from services.registry.sources.parts import CHUNK_BYTES, Arrived, Part
from services.registry.sources.places import Listing
from services.registry.sources.wanted import Entry


class PackagePlace:
    """A file or folder of a distribution; only files that its own record lists, and that lie where it lies."""

    def __init__(self, address: PackageAddress) -> None:
        self._address = address
        self._files: dict[str, Path] = {}

    def look(self) -> Listing:
        """Returns the files of the distribution at the path, and its version as the revision."""
        try:
            found = distribution(self._address.distribution)
        except PackageNotFoundError:
            raise SourceFault(
                Code.NOT_FOUND, f"the distribution {self._address.distribution!r} is not installed here"
            ) from None
        self._files = dict(_files_at(found, self._address.path))
        if not self._files:
            raise SourceFault(Code.NOT_FOUND, f"{self._address.shown} has no files; the distribution is installed")
        entries = [
            Entry(path=path, key=path, size_bytes=file.stat().st_size, tag=found.version)
            for path, file in self._files.items()
        ]
        return Listing(found.version, entries)

    def fetch(self, part: Part, tell: Callable[[int], None]) -> Arrived:
        """Copies one file."""
        with self._files[part.entry.path].open("rb") as file:
            return part.fill(iter(lambda: file.read(CHUNK_BYTES), b""), 0, tell)


def _files_at(found: Distribution, path: str) -> Iterator[tuple[str, Path]]:
    """Yields (path below `path`, file on the disk)."""
    root = Path(str(found.locate_file(""))).resolve()
    for listed in found.files or ():
        name = listed.as_posix()
        if name == path:
            below = listed.name
        elif not path or name.startswith(path + "/"):
            below = name.removeprefix(path).lstrip("/")
        else:
            continue
        file = Path(str(listed.locate())).resolve()
        if file.is_relative_to(root) and file.is_file():
            yield below, file
