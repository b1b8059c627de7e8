"""Messages of lineage <-> plain values."""

from collections.abc import Iterable

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.lineage.graph import Direction
from services.registry.lineage.queries import Affected, Found, Node, Question
from services.registry.lineage.revocations import Revocation
from services.registry.lineage.things import LONGEST_REASON, Kind, Role
from services.registry.wire import timestamp
from tuneforge.v1 import lineage_pb2 as pb


def question_of_request(request: pb.QueryLineageRequest) -> Question:
    """Reads what a walk asks for.

    Raises:
        ServiceError: `INVALID_FIELD`: roles, kinds or a direction that are not known.
    """
    violations = [
        *_unknown("roles", request.roles, pb.LineageRole.values()),
        *_unknown("kinds", request.kinds, pb.LineageKind.values()),
        *_unknown("direction", [request.direction or 1], pb.LineageDirection.values()),
    ]
    if violations:
        raise invalid_fields(violations)
    is_down = request.direction == pb.LINEAGE_DIRECTION_DESCENDANTS
    return Question(
        name=request.name,
        direction=Direction.DESCENDANTS if is_down else Direction.ANCESTORS,
        roles=frozenset(Role(pb.LineageRole.Name(each).removeprefix("LINEAGE_ROLE_")) for each in request.roles),
        kinds=frozenset(Kind(pb.LineageKind.Name(each).removeprefix("LINEAGE_KIND_")) for each in request.kinds),
        max_depth=request.max_depth,
    )


def _unknown(field: str, numbers: Iterable[int], known: Iterable[int]) -> list[FieldViolation]:
    allowed = set(known) - {0}
    return [FieldViolation(field, f"has {number}, which is none") for number in numbers if number not in allowed]


def check_reason(reason: str) -> None:
    """Refuses a reason that is missing or too long.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if not reason.strip():
        raise invalid_fields([FieldViolation("reason", "is empty; say why, for everyone who meets it")])
    if len(reason) > LONGEST_REASON:
        problem = f"has {len(reason)} characters; at most {LONGEST_REASON} are taken"
        raise invalid_fields([FieldViolation("reason", problem)])


def found_to_proto(found: Found, token: str) -> pb.QueryLineageResponse:
    """Converts a page of a walk to its message."""
    return pb.QueryLineageResponse(
        nodes=map(node_to_proto, found.nodes), edges=edges_to_proto(found.edges), next_page_token=token
    )


def node_to_proto(node: Node) -> pb.LineageNode:
    """Converts a thing to its message."""
    message = pb.LineageNode(
        name=node.thing.name,
        kind=pb.LineageKind.Value(f"LINEAGE_KIND_{node.thing.kind}"),
        state=pb.LineageState.Value(f"LINEAGE_STATE_{node.state}"),
        digest=node.digest,
        depth=node.depth,
    )
    if node.create_time_us:
        message.create_time.CopyFrom(timestamp(node.create_time_us))
    return message


def edges_to_proto(edges: Iterable[tuple[str, str, str]]) -> Iterable[pb.LineageEdge]:
    """Converts edges to their messages."""
    return (
        pb.LineageEdge(child=child, parent=parent, role=pb.LineageRole.Value(f"LINEAGE_ROLE_{role}"))
        for child, parent, role in edges
    )


def affected_to_proto(alias: Affected) -> pb.AffectedAlias:
    """Converts an alias that must move to its message."""
    return pb.AffectedAlias(name=alias.name, version=alias.version, suggestion=alias.suggestion)


def revocation_to_proto(revocation: Revocation) -> pb.Revocation:
    """Converts a revocation to its message."""
    message = pb.Revocation(name=revocation.name, reason=revocation.reason, actor=revocation.actor)
    if revocation.sequence:
        message.time.CopyFrom(timestamp(revocation.time_us))
    return message


def change_to_proto(change: Revocation) -> pb.RevocationChange:
    """Converts an entry of the log to its message."""
    return pb.RevocationChange(
        sequence=change.sequence,
        name=change.name,
        is_revoked=change.is_revoked,
        actor=change.actor,
        reason=change.reason,
        time=timestamp(change.time_us),
    )
