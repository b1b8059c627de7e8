"""The methods that change what may change of models and versions, and those that keep validation reports."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, update

from services.grpckit.context import current
from services.grpckit.errors import FieldViolation, invalid_fields
from services.grpckit.pages import cut
from services.registry.calls import Calls, Context, page_of_request
from services.registry.library import now_us
from services.registry.lineage.marks import marked
from services.registry.models import fact_store, facts, references, report_store, reports, store, wire
from services.registry.models.listing import get_listed_model
from services.registry.models.resources import Report
from services.registry.reporters import roles_of_reporter
from services.registry.tables import MODELS
from tuneforge.names import ModelName, ModelVersionName, parse_model_reference
from tuneforge.v1 import models_pb2, validations_pb2


class FactCalls(Calls):
    """Updates of facts, and validation reports."""

    async def UpdateModel(self, request: models_pb2.UpdateModelRequest, context: Context) -> models_pb2.Model:
        """Changes the facts of a model."""
        name = ModelName.parse(request.model.name)
        paths = list(request.update_mask.paths)
        facts.check_mask(paths)
        wanted, time_us = facts.described(request.model, "model."), now_us()

        def change(connection: Connection) -> models_pb2.Model:
            listed = get_listed_model(connection, name)
            before = replace(listed.own, description=listed.model.description)
            after = facts.changed(
                before, wanted, paths, etag=request.model.etag, time_us=time_us, name=request.model.name
            )
            if listed.own.revision:
                fact_store.change_facts(connection, name, fact_store.OWN, after)
            else:
                fact_store.add_facts(connection, name, fact_store.OWN, after, time_us=time_us)
            if after.description != before.description:
                is_model = (MODELS.c.project == name.project, MODELS.c.id == name.model)
                connection.execute(update(MODELS).where(*is_model).values(description=after.description))
            return wire.model_to_proto(get_listed_model(connection, name))

        return await self._change(request, name.project, models_pb2.Model, change)

    async def UpdateModelVersion(
        self, request: models_pb2.UpdateModelVersionRequest, context: Context
    ) -> models_pb2.ModelVersion:
        """Changes the facts of a version that may change."""
        name = ModelVersionName.parse(request.version.name)
        paths = list(request.update_mask.paths)
        facts.check_mask(paths)
        wanted, time_us = facts.described(request.version, "version."), now_us()
        sees = current().principal.may_touch

        def change(connection: Connection) -> models_pb2.ModelVersion:
            before = store.get_model_version(connection, name).content.facts
            after = facts.changed(
                before, wanted, paths, etag=request.version.etag, time_us=time_us, name=request.version.name
            )
            fact_store.change_facts(connection, name.parent, name.version, after)
            changed = store.get_model_version(connection, name)
            return marked(connection, wire.model_version_to_proto(changed), sees)

        return await self._change(request, name.project, models_pb2.ModelVersion, change)

    async def CreateValidationReport(
        self, request: validations_pb2.CreateValidationReportRequest, context: Context
    ) -> validations_pb2.ValidationReport:
        """Stores what an examination of a version found."""
        name = ModelVersionName.parse(request.parent)
        actor, roles, time_us = current().actor, roles_of_reporter(current()), now_us()
        if request.report.source == reports.TRAINER and not current().principal.is_service:
            problem = f"is {reports.TRAINER!r}, which only a run's own report may say; leave it out, or name the tool"
            raise invalid_fields([FieldViolation("report.source", problem)])
        report = reports.report_of(request.report, actor)

        def add(connection: Connection) -> validations_pb2.ValidationReport:
            store.get_model_version(connection, name)
            added = report_store.add_report(connection, name, report, creator=actor, roles=roles, time_us=time_us)
            return reports.report_to_proto(name, added)

        return await self._change(request, name.project, validations_pb2.ValidationReport, add)

    async def ListValidationReports(
        self, request: validations_pb2.ListValidationReportsRequest, context: Context
    ) -> validations_pb2.ListValidationReportsResponse:
        """Lists the reports on a version."""
        wanted = parse_model_reference(request.parent)
        page = page_of_request(request)

        def read(connection: Connection) -> tuple[ModelVersionName, list[Report]]:
            name = references.resolve(connection, wanted).name
            return name, report_store.list_reports(connection, name, page)

        name, found = await self._database.read(read)
        messages = [reports.report_to_proto(name, report) for report in found]
        entries, token = cut(messages, page, _number, size_bytes=lambda message: message.ByteSize())
        return validations_pb2.ListValidationReportsResponse(reports=entries, next_page_token=token)


def _number(message: Any) -> str:
    return str(message.name.rpartition("/")[2])
