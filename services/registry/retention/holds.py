"""The rows of holds. See `collections.py` for the manners of such functions."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, and_, delete, insert, or_, select

from services.grpckit.pages import Page, cut
from services.registry.retention.resources import Hold, VersionName
from services.registry.retention.store import require_version
from services.registry.tables import HOLDS

_SEPARATOR = " "
"""Between holder and version in a page's key; neither has one."""


Wanted = tuple[str, Collection[VersionName]]
"""A holder and what it needs."""


def add(connection: Connection, owner: str, wanted: Sequence[Wanted], *, time_us: int) -> None:
    """Holds versions for holders; one that is held already stays so.

    Raises:
        ServiceError: `NOT_FOUND`: one is not there.
    """
    for version in {version for _, versions in wanted for version in versions}:
        require_version(connection, version)
    holders = [holder for holder, _ in wanted]
    known = select(HOLDS.c.holder, HOLDS.c.version).where(HOLDS.c.owner == owner, HOLDS.c.holder.in_(holders))
    pairs = {(holder, str(version)) for holder, versions in wanted for version in versions}
    new = sorted(pairs - {(row.holder, row.version) for row in connection.execute(known)})
    rows = [{"owner": owner, "holder": holder, "version": version, "time_us": time_us} for holder, version in new]
    if rows:
        connection.execute(insert(HOLDS), rows)


def remove(connection: Connection, owner: str, released: Sequence[tuple[str, Collection[str]]]) -> int:
    """Takes holds back and returns how many there were.

    Args:
        connection: In a transaction that writes.
        owner: Whose; empty: anybody's.
        released: What held, and which versions; none: all.
    """
    statement = delete(HOLDS) if not owner else delete(HOLDS).where(HOLDS.c.owner == owner)
    count = 0
    if whole := [holder for holder, versions in released if not versions]:
        count += connection.execute(statement.where(HOLDS.c.holder.in_(whole))).rowcount
    for holder, versions in released:
        if versions:
            some = HOLDS.c.holder == holder, HOLDS.c.version.in_(versions)
            count += connection.execute(statement.where(*some)).rowcount
    return count


def page_of_owner(connection: Connection, owner: str, page: Page) -> tuple[list[Hold], str]:
    """Returns holds of a service by holder and version, and the token of the next page."""
    statement = select(HOLDS).where(HOLDS.c.owner == owner).order_by(HOLDS.c.holder, HOLDS.c.version)
    if page.after is not None:
        holder, _, version = page.after.partition(_SEPARATOR)
        later = or_(HOLDS.c.holder > holder, and_(HOLDS.c.holder == holder, HOLDS.c.version > version))
        statement = statement.where(later)
    rows = connection.execute(statement.limit(page.size + 1)).all()
    found, token = cut(rows, page, lambda row: f"{row.holder}{_SEPARATOR}{row.version}")
    return [Hold(row.holder, row.version, row.time_us) for row in found], token
