"""Places for work that takes a core or a disk: so many at once, and the last one is not for who has one already."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from services.grpckit.errors import Reason, ServiceError

_RETRY_S = 5.0


class Slots:
    """Places that projects share. For one event loop.

    Args:
        what: What runs in them, in plural, for refusals.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._running = Counter[str]()

    @contextmanager
    def one_for(self, project: str, *, most: int) -> Iterator[None]:
        """Holds a place while the block runs.

        The last free place goes only to a project that has none: one that asks for much leaves the others a way in.

        Args:
            project: Whose work it is.
            most: Places there are for all projects.

        Raises:
            ServiceError: `TOO_MANY_CALLS`: there is no place for it now.
        """
        running, own = self._running.total(), self._running[project]
        if running >= most:
            self._refuse(f"{most} {self._what} are running, which is as many as may", project)
        if own and running == most - 1:
            self._refuse(f"{own} {self._what} of {project!r} are running; the last place is kept for others", project)
        self._running[project] += 1
        try:
            yield
        finally:
            self._running[project] -= 1
            self._running += Counter()  # drops those that have none, so that it does not grow with every project

    def _refuse(self, message: str, project: str) -> None:
        metadata = {"project": project}
        raise ServiceError(Reason.TOO_MANY_CALLS, message, metadata=metadata, retry_after_s=_RETRY_S)
