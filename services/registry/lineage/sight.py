"""What a caller may see of the graph and of revocations, which both cross the borders of projects."""

from collections.abc import Callable, Collection

from sqlalchemy import Connection

from services.grpckit.context import ALL_PROJECTS, Principal
from services.registry.lineage.store import in_projects

Sight = Callable[[Connection, Collection[int]], Collection[int]]
"""Gives those of some things that the caller may see."""


Sees = Callable[[str], bool]
"""Whether the things of a project may be named to whom an answer is for."""


def sight_of(principal: Principal) -> Sight:
    """Returns what a principal sees: things of its own projects, and the addresses that they were imported from."""
    if ALL_PROJECTS in principal.projects:
        return lambda _, numbers: numbers
    projects = {*principal.projects, ""}
    return lambda connection, numbers: in_projects(connection, numbers, projects)
