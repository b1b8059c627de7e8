"""The methods that describe a version: its card and its profile, both written anew at each call."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import Callable

from sqlalchemy import Connection, select

from services.grpckit.context import current
from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import page_of
from services.registry.calls import Calls, Context
from services.registry.models import references, report_store, reports, store, wire
from services.registry.models.card import CardFacts, card_of
from services.registry.models.listing import get_listed_model
from services.registry.models.profiles import profile_of
from services.registry.tables import ALIASES
from tuneforge.names import InvalidName, ModelVersionName, parse_model_reference
from tuneforge.v1 import models_pb2, profiles_pb2, validations_pb2

_MOST_ANCESTORS = 32


class DescriptionCalls(Calls):
    """Cards and profiles."""

    async def GetModelCard(self, request: profiles_pb2.GetModelCardRequest, context: Context) -> profiles_pb2.ModelCard:
        """Describes a version for people."""
        name = parse_model_reference(request.name)
        principal = current().principal

        def read(connection: Connection) -> CardFacts:
            found = references.resolve(connection, name)
            version = wire.model_version_to_proto(found)
            return CardFacts(
                version=version,
                model=wire.model_to_proto(get_listed_model(connection, found.name.parent)),
                profile=profile_of(version, ""),
                ancestors=_ancestors(connection, version, principal.may_touch),
                report=_newest_report(connection, found.name),
                aliases=_aliases(connection, found.name),
            )

        facts = await self._database.read(read)
        return profiles_pb2.ModelCard(name=facts.version.name, markdown=card_of(facts))

    async def GetModelProfile(
        self, request: profiles_pb2.GetModelProfileRequest, context: Context
    ) -> profiles_pb2.ModelProfile:
        """Tells what a version needs to be served."""
        name = parse_model_reference(request.name)
        found = await self._database.read(lambda connection: references.resolve(connection, name))
        return profile_of(wire.model_version_to_proto(found), request.precision)


def _ancestors(
    connection: Connection, version: models_pb2.ModelVersion, may_touch: Callable[[str], bool]
) -> list[models_pb2.ModelVersion]:
    found: list[models_pb2.ModelVersion] = []
    wanted = version.lineage.base.version
    while wanted and len(found) < _MOST_ANCESTORS:
        try:
            name = ModelVersionName.parse(wanted)
            if not may_touch(name.project):
                break
            ancestor = wire.model_version_to_proto(store.get_model_version(connection, name))
        except InvalidName:
            break
        except ServiceError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            break
        found.append(ancestor)
        wanted = ancestor.lineage.base.version
    return found


def _newest_report(connection: Connection, name: ModelVersionName) -> validations_pb2.ValidationReport | None:
    found = report_store.list_reports(connection, name, page_of(1, "", scope="newest"))
    return reports.report_to_proto(name, found[0]) if found else None


def _aliases(connection: Connection, name: ModelVersionName) -> list[str]:
    columns = ALIASES.c
    statement = select(columns.alias).where(
        columns.project == name.project, columns.model == name.model, columns.version == name.version
    )
    return sorted(connection.execute(statement).scalars())
