"""What was made from what: queries over the graph, and the revocation of data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.errors import InvalidArgument, NotFound, Reason
from tuneforge.v1 import lineage_pb2 as pb
from tuneforge.values import Word

if TYPE_CHECKING:
    from collections.abc import Mapping

Direction = Literal["ancestors", "descendants"]
"""To what a thing was made from, or to what was made from it."""

_LARGEST_PAGE = 1000
_REVOKE_DEADLINE_S = 60.0


class LineageKind(Word):
    """What a thing is."""

    UNKNOWN = "UNKNOWN"
    DATASET_VERSION = "DATASET_VERSION"
    MODEL_VERSION = "MODEL_VERSION"
    JOB = "JOB"
    ALIAS = "ALIAS"
    PROMOTION = "PROMOTION"
    SOURCE = "SOURCE"


class LineageRole(Word):
    """What the parent was for the child."""

    UNKNOWN = "UNKNOWN"
    BASE = "BASE"
    DATASET = "DATASET"
    VALIDATION = "VALIDATION"
    JOB = "JOB"
    PARENT = "PARENT"
    ALIAS = "ALIAS"
    PROMOTION = "PROMOTION"
    SOURCE = "SOURCE"


class LineageState(Word):
    """Whether a thing may be used."""

    UNKNOWN = "UNKNOWN"
    LIVE = "LIVE"
    REVOKED = "REVOKED"
    TAINTED = "TAINTED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """A thing in the graph."""

    name: str
    """Its resource name, or the address of a source."""
    kind: LineageKind
    state: LineageState
    digest: str
    """Digest of a version's manifest; empty for all else."""
    create_time: datetime | None
    """When a version was made; None for all else."""
    depth: int
    """Edges between it and where the query began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """That one thing was made from another."""

    child: str
    parent: str
    role: LineageRole


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageGraph:
    """A part of the graph."""

    nodes: tuple[LineageNode, ...]
    """Nearest first; the first one is where the query began."""
    edges: tuple[LineageEdge, ...]
    is_cut: bool = False
    """Whether there is more than was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """That data is revoked."""

    name: str
    """The data set or data set version; empty, as all else is, when the caller may not touch its project."""
    reason: str
    actor: str
    time: datetime | None
    """None: it is not, only what would happen was asked for; or it is of such a project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationChange:
    """One entry of the log of revocations."""

    sequence: int
    name: str
    is_revoked: bool
    """False: it was taken back."""
    actor: str
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AffectedAlias:
    """An alias that names a version made from revoked data."""

    name: str
    version: str
    suggestion: str | None
    """The newest version of the model that was not made from it; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """What a revocation means."""

    revocation: Revocation
    num_downstream: "Mapping[str, int]"
    """How many things were made from the data, by kind."""
    downstream: tuple[LineageNode, ...]
    """The first 1000 of them."""
    aliases: tuple[AffectedAlias, ...]
    """The first 1000 aliases that must move."""


class Lineage:
    """The graph of one project and what hangs together with it; `client.lineage`.

    Things are given by whole name, or as `models/m/3`, `models/m@production`, `datasets/d/1`, `datasets/d`, `jobs/j`.
    Just `x/3` is version 3 of the model or data set `x`; where both exist, the longer name has to say which.
    """

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def graph(
        self,
        name: str,
        *,
        direction: Direction = "ancestors",
        roles: Sequence[LineageRole] = (),
        kinds: Sequence[LineageKind] = (),
        max_depth: int = 0,
        limit: int = 1000,
    ) -> LineageGraph:
        """Returns what a thing was made from, or what was made from it.

        Args:
            name: Where to begin.
            direction: Which way.
            roles: Edges to follow; empty: all.
            kinds: Kinds to return, whatever lies between; empty: all.
            max_depth: Most edges from the start; 0: any.
            limit: Most nodes, >= 1; pages of 1000 are read until there are so many.

        Raises:
            NotFound: There is no such thing in the graph.
        """
        request = pb.QueryLineageRequest(
            name=self._whole(name),
            direction=pb.LineageDirection.Value(f"LINEAGE_DIRECTION_{direction.upper()}"),
            roles=[pb.LineageRole.Value(f"LINEAGE_ROLE_{role}") for role in roles],
            kinds=[pb.LineageKind.Value(f"LINEAGE_KIND_{kind}") for kind in kinds],
            max_depth=max_depth,
            page_size=min(limit, _LARGEST_PAGE),
        )
        nodes: list[LineageNode] = []
        edges: list[LineageEdge] = []
        registry = self._connections.registry
        for page in registry.pages(registry.stub.QueryLineage, request):
            nodes += map(_node, page.nodes)
            edges += map(_edge, page.edges)
            if len(nodes) >= limit and page.next_page_token:
                return _cut(nodes, edges, limit)
        return LineageGraph(nodes=tuple(nodes), edges=tuple(edges))

    def path(self, name: str, other: str) -> LineageGraph:
        """Returns a shortest way between two things, the one made last first; without nodes when there is none.

        Raises:
            NotFound: There is no such thing in the graph.
        """
        registry = self._connections.registry
        request = pb.FindLineagePathRequest(name=self._whole(name), other=self._whole(other))
        answer = registry.call(registry.stub.FindLineagePath, request)
        return LineageGraph(nodes=tuple(map(_node, answer.nodes)), edges=tuple(map(_edge, answer.edges)))

    def affected_aliases(self, name: str) -> Iterator[AffectedAlias]:
        """Yields the aliases that must move if a thing is revoked: a data set, a version of one, or any other.

        Raises:
            NotFound: There is no such thing in the graph.
        """
        registry = self._connections.registry
        request = pb.ListAffectedAliasesRequest(name=self._whole(name), page_size=_LARGEST_PAGE)
        for page in registry.pages(registry.stub.ListAffectedAliases, request):
            yield from map(_affected, page.aliases)

    def revoke(self, dataset: str, *, reason: str, validate_only: bool = False) -> Consequences:
        """Revokes a data set (`d`) or one version of it (`d/1`); from then on nothing new is made from it.

        Args:
            dataset: The data.
            reason: Why; told to everyone who is refused because of it.
            validate_only: Tell what would be affected, and mark nothing.

        Raises:
            NotFound: There is no such data.
        """
        registry = self._connections.registry
        request = pb.RevokeDatasetRequest(
            name=self._data(dataset), reason=reason, validate_only=validate_only, request_id=new_request_id()
        )
        answer = registry.call(registry.stub.RevokeDataset, request, timeout_s=_REVOKE_DEADLINE_S)
        return Consequences(
            revocation=revocation_from_proto(answer.revocation),
            num_downstream=MappingProxyType(dict(answer.num_downstream)),
            downstream=tuple(map(_node, answer.downstream)),
            aliases=tuple(map(_affected, answer.aliases)),
        )

    def unrevoke(self, dataset: str, *, reason: str) -> RevocationChange:
        """Takes a revocation back; the log keeps both.

        Raises:
            FailedPrecondition: It is not revoked under this name.
        """
        registry = self._connections.registry
        request = pb.UnrevokeDatasetRequest(name=self._data(dataset), reason=reason, request_id=new_request_id())
        return _change(registry.call(registry.stub.UnrevokeDataset, request))

    def revocations(self, dataset: str = "") -> Iterator[RevocationChange]:
        """Yields the log of revocations, newest first: of the project, of a data set or of a version of one."""
        registry = self._connections.registry
        parent = self._data(dataset) if dataset else names.parent(self._project)
        request = pb.ListRevocationsRequest(parent=parent)
        for page in registry.pages(registry.stub.ListRevocations, request):
            yield from map(_change, page.changes)

    def _data(self, name: str) -> str:
        """Returns the name of a data set or of a version of it, of `d` or `d/1`."""
        is_version = "/versions/" in name or (not name.startswith("projects/") and "/" in name)
        return names.dataset_version(self._project, name) if is_version else names.dataset(self._project, name)

    def _whole(self, name: str) -> str:
        kind, _, rest = name.partition("/")
        if kind == "datasets" and rest:
            return self._data(rest.replace("/versions/", "/", 1))
        if kind == "jobs" and rest:
            return names.job(self._project, rest)
        if kind == "models" and rest:
            rest = rest.replace("/versions/", "/", 1)
            is_version = "/" in rest or "@" in rest
            return names.model_version(self._project, rest) if is_version else names.model(self._project, rest)
        if kind == "projects" or "://" in name:
            return name
        if "@" in name:
            return names.model_version(self._project, name)
        return self._either(name)

    def _either(self, name: str) -> str:
        """Returns what `x/3` or `x` means: of the model `x`, or of the data set."""
        model = names.model_version(self._project, name) if "/" in name else names.model(self._project, name)
        data = self._data(name)
        found = [each for each in (model, data) if self._is_known(each)]
        if len(found) == 1:
            return found[0]
        metadata = {"name": name}
        if found:
            message = f"{name!r} may be of a model and also of a data set"
            cure = f"Say which: `models/{name}` or `datasets/{name}`."
            raise InvalidArgument(Reason.INVALID_NAME, message, cure=cure, metadata=metadata)
        message = f"neither a model nor a data set of project {self._project!r} has what {name!r} names"
        raise NotFound(Reason.NOT_FOUND, message, metadata=metadata)

    def _is_known(self, name: str) -> bool:
        registry = self._connections.registry
        request = pb.QueryLineageRequest(name=name, direction=pb.LINEAGE_DIRECTION_ANCESTORS, max_depth=1, page_size=1)
        try:
            registry.call(registry.stub.QueryLineage, request)
        except NotFound:
            return False
        return True


def _cut(nodes: list[LineageNode], edges: list[LineageEdge], limit: int) -> LineageGraph:
    kept = nodes[:limit]
    known = {node.name for node in kept}
    inside = (edge for edge in edges if edge.child in known and edge.parent in known)
    return LineageGraph(nodes=tuple(kept), edges=tuple(inside), is_cut=True)


def revocation_from_proto(message: pb.Revocation) -> Revocation:
    """Converts a revocation."""
    return Revocation(
        name=message.name, reason=message.reason, actor=message.actor, time=_wire.instant_or_none(message.time)
    )


def _node(message: pb.LineageNode) -> LineageNode:
    return LineageNode(
        name=message.name,
        kind=_wire.word(LineageKind, pb.LineageKind.DESCRIPTOR, message.kind),
        state=_wire.word(LineageState, pb.LineageState.DESCRIPTOR, message.state),
        digest=message.digest,
        create_time=_wire.instant_or_none(message.create_time),
        depth=message.depth,
    )


def _edge(message: pb.LineageEdge) -> LineageEdge:
    role = _wire.word(LineageRole, pb.LineageRole.DESCRIPTOR, message.role)
    return LineageEdge(child=message.child, parent=message.parent, role=role)


def _affected(message: pb.AffectedAlias) -> AffectedAlias:
    return AffectedAlias(name=message.name, version=message.version, suggestion=message.suggestion or None)


def _change(message: pb.RevocationChange) -> RevocationChange:
    return RevocationChange(
        sequence=message.sequence,
        name=message.name,
        is_revoked=message.is_revoked,
        actor=message.actor,
        reason=message.reason,
        time=_wire.instant(message.time),
    )
