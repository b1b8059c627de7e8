"""The messages of versions as lists show them: serialised, and kept in memory across reads and commits.

A version never changes but for the facts that people may change, and those have a revision. So a message that is kept
under name, number and revision is never out of date; what follows from other rows, such as revocations, is not in it.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, bindparam

from services.grpckit.pages import LARGEST_PAGE_BYTES
from services.registry.models import wire
from services.registry.models.listing import ListedVersion
from services.registry.models.store import version_of_row, with_facts
from services.registry.tables import MODEL_VERSIONS
from tuneforge.names import ModelName

KEPT_BYTES = 16 * 1024 * 1024
LARGEST_BYTES = 64 * 1024
"""Larger messages are made anew each time: a few of them would push all others out."""
_AT_ONCE = 50

_Key = tuple[str, str, int, int]
"""Project, model, number and revision."""

_RECORDS = with_facts([column for column in MODEL_VERSIONS.c if column.name != "tensors"]).where(
    MODEL_VERSIONS.c.project == bindparam("of_project"),
    MODEL_VERSIONS.c.model == bindparam("of_model"),
    MODEL_VERSIONS.c.version.in_(bindparam("numbers", expanding=True)),
)


class VersionMessages:
    """Serialised `ModelVersion` messages without tensors; for any thread.

    Args:
        kept_bytes: Most bytes kept; the ones used longest ago go first.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.kept = 0
        """Bytes kept."""
        self.made = 0
        """Messages that were made from rows, for tests and metrics."""

    def of(self, connection: Connection, name: ModelName, versions: Sequence[ListedVersion]) -> Iterator[bytes]:
        """Yields the messages of versions of a model, in their order.

        It ends when they are more than any page can carry, so that large ones do not fill the memory: the caller cuts
        the page by size, and what exceeds it tells that there is more.
        """
        left = 2 * LARGEST_PAGE_BYTES
        for start in range(0, len(versions), _AT_ONCE):
            some = versions[start : start + _AT_ONCE]
            found = self._find(name, some)
            if missing := [version for version in some if version.number not in found]:
                found |= self._make(connection, name, missing)
            for version in some:
                yield found[version.number]
                left -= len(found[version.number])
                if left < 0:
                    return

    def _find(self, name: ModelName, versions: Sequence[ListedVersion]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        with self._lock:
            for version in versions:
                key = (name.project, name.model, version.number, version.revision)
                content = self._kept.get(key)
                if content is not None:
                    self._kept.move_to_end(key)
                    found[version.number] = content
        return found

    def _make(self, connection: Connection, name: ModelName, versions: Sequence[ListedVersion]) -> dict[int, bytes]:
        values = {"of_project": name.project, "of_model": name.model, "numbers": [each.number for each in versions]}
        made = {
            row.version: wire.model_version_to_proto(version_of_row(row)).SerializeToString()
            for row in connection.execute(_RECORDS, values)
        }
        with self._lock:
            self.made += len(made)
            for version in versions:
                content = made[version.number]
                key = (name.project, name.model, version.number, version.revision)
                if len(content) <= LARGEST_BYTES and key not in self._kept:
                    self._kept[key] = content
                    self.kept += len(content)
            while self.kept > self._kept_bytes:
                self.kept -= len(self._kept.popitem(last=False)[1])
        return made
