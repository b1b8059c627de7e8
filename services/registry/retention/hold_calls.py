"""The methods by which other services hold what their jobs and deployments need."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

import re
from collections.abc import Sequence

from sqlalchemy import Connection

from services.grpckit.context import require_project
from services.grpckit.errors import FieldViolation, invalid_fields
from services.grpckit.pages import page_of
from services.registry.calls import Calls, Context
from services.registry.library import now_us
from services.registry.retention import holds, wire
from services.registry.retention.resources import LONGEST_OWNER, MOST_HELD, parse_version
from tuneforge.names import DeploymentName, InvalidName, JobName, SweepName, project_of
from tuneforge.v1 import retention_pb2 as pb

MOST_OTHERS = 255
"""Further holders of one call: as many writes as share a commit."""
_OWNER = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_OWNER}}}")


class HoldCalls(Calls):
    """The methods of holds."""

    async def HoldVersions(self, request: pb.HoldVersionsRequest, context: Context) -> pb.HoldVersionsResponse:
        """Holds versions for jobs or deployments."""
        _check_owner(request.owner)
        asked = _asked(request)
        for _, versions in asked:
            _check_count(len(versions), least=1)
        wanted = [(_holder(holder), [parse_version(name) for name in versions]) for holder, versions in asked]

        def change(connection: Connection) -> None:
            holds.add(connection, request.owner, wanted, time_us=now_us())

        await self._database.write(change, is_unseen=True)  # no other answer tells of holds
        return pb.HoldVersionsResponse(num_holders=len(wanted))

    async def ReleaseVersions(self, request: pb.ReleaseVersionsRequest, context: Context) -> pb.ReleaseVersionsResponse:
        """Takes holds back."""
        if request.owner:
            _check_owner(request.owner)
        asked = _asked(request)
        for _, versions in asked:
            _check_count(len(versions), least=0)
        given = [(_holder(holder), [str(parse_version(name)) for name in versions]) for holder, versions in asked]
        released = await self._database.write(lambda c: holds.remove(c, request.owner, given), is_unseen=True)
        return pb.ReleaseVersionsResponse(num_released=released, num_holders=len(given))

    async def ListHolds(self, request: pb.ListHoldsRequest, context: Context) -> pb.ListHoldsResponse:
        """Lists what a service holds."""
        _check_owner(request.owner)
        page = page_of(request.page_size, request.page_token, scope=f"ListHolds {request.owner}")
        found, token = await self._database.read(lambda c: holds.page_of_owner(c, request.owner, page))
        return pb.ListHoldsResponse(holds=map(wire.hold_to_proto, found), next_page_token=token)


def _asked(request: pb.HoldVersionsRequest | pb.ReleaseVersionsRequest) -> list[tuple[str, Sequence[str]]]:
    """Returns the holders that a call is about, with what is named of each."""
    if len(request.others) > MOST_OTHERS:
        problem = f"has {len(request.others)} holders; give at most {MOST_OTHERS}"
        raise invalid_fields([FieldViolation("others", problem)])
    for other in request.others:
        require_project(project_of(other.holder))  # the policy looks at the first holder alone
    return [(each.holder, each.versions) for each in (request, *request.others)]


def _check_owner(owner: str) -> None:
    if not _OWNER.fullmatch(owner):
        problem = f"is {owner[:80]!r}; give 1 to {LONGEST_OWNER} letters, digits, - and _"
        raise invalid_fields([FieldViolation("owner", problem)])


def _check_count(count: int, *, least: int) -> None:
    if not least <= count <= MOST_HELD:
        problem = f"has {count} names; give {least} to {MOST_HELD}"
        raise invalid_fields([FieldViolation("versions", problem)])


def _holder(name: str) -> str:
    if "/jobs/" in name:
        return str(JobName.parse(name))
    if "/deployments/" in name:
        return str(DeploymentName.parse(name))
    if "/sweeps/" in name:
        return str(SweepName.parse(name))
    raise InvalidName(name, f"{JobName.pattern}, {SweepName.pattern} or {DeploymentName.pattern}")
