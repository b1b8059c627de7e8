"""The methods of gates: policies, approvals, evaluations, and the question what the gates would say."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from sqlalchemy import Connection

from services.grpckit.context import current, require_project
from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields
from services.grpckit.pages import cut, page_of
from services.registry.aliases import requests as alias_requests
from services.registry.calls import Calls, Context, page_of_request, size_bytes
from services.registry.datasets.store import get_dataset_version
from services.registry.gates import approval_store, evaluation_store, policy_store, requests, wire
from services.registry.gates.approval_store import ApprovalRow
from services.registry.gates.evaluation_store import EvaluationRow
from services.registry.gates.examination import Examiner
from services.registry.gates.policy_store import PolicyWish
from services.registry.gates.rules import Evaluated
from services.registry.library import Library, now_us
from services.registry.models.store import get_model_version
from services.registry.reporters import roles_of_reporter
from tuneforge.names import AliasName, DatasetVersionName, ModelName, ModelVersionName, PolicyName
from tuneforge.v1 import gates_pb2 as pb


class GateCalls(Calls):
    """The methods of gates."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        self._examiner = Examiner(library.database)

    # --- policies -----------------------------------------------------------------------------------------------------
    async def SetGatePolicy(self, request: pb.SetGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """Makes a policy or changes it."""
        name = requests.checked_policy(request)
        datasets = [each for gate in request.policy.gates for each in (gate.metric.dataset, gate.comparison.dataset)]
        parsed = {text: DatasetVersionName.parse(text) for text in datasets if text}
        for dataset in parsed.values():
            require_project(dataset.project)
        actor = current().actor

        def change(connection: Connection) -> pb.GatePolicy:
            digests = {text: _digest_of(connection, dataset) for text, dataset in parsed.items()}
            wish = PolicyWish(
                name=name,
                etag=request.policy.etag,
                alias_pattern=request.policy.alias_pattern,
                record=wire.record_of(request.policy, digests),
                datasets=frozenset(map(str, parsed.values())),
                actor=actor,
                reason=request.reason,
                time_us=now_us(),
            )
            return wire.policy_to_proto(policy_store.change_policy(connection, wish))

        return await self._change(request, name.project, pb.GatePolicy, change)

    async def GetGatePolicy(self, request: pb.GetGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """Returns a policy, as it is or as a revision had it."""
        name = PolicyName.parse(request.name)
        if not 0 <= request.revision < 2**62:
            raise invalid_fields([FieldViolation("revision", f"is {request.revision}; give 0 or more")])
        row = await self._database.read(lambda c: policy_store.get_policy(c, name, request.revision))
        return wire.policy_to_proto(row)

    async def ListGatePolicies(
        self, request: pb.ListGatePoliciesRequest, context: Context
    ) -> pb.ListGatePoliciesResponse:
        """Lists the policies of a model."""
        name = ModelName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: policy_store.list_policies(c, name, page))
        messages = [wire.policy_to_proto(row) for row in rows]
        entries, token = cut(messages, page, lambda row: row.name.rpartition("/")[2], size_bytes=size_bytes)
        return pb.ListGatePoliciesResponse(policies=entries, next_page_token=token)

    async def DeleteGatePolicy(self, request: pb.DeleteGatePolicyRequest, context: Context) -> pb.GatePolicy:
        """Deletes a policy and logs that."""
        name = PolicyName.parse(request.name)
        if violations := list(requests.reason_violations(request.reason, "reason")):
            raise invalid_fields(violations)
        actor = current().actor

        def delete(connection: Connection) -> pb.GatePolicy:
            wish = PolicyWish(
                name=name,
                etag=request.etag,
                is_deletion=True,
                actor=actor,
                reason=request.reason,
                time_us=now_us(),
            )
            return wire.policy_to_proto(policy_store.change_policy(connection, wish))

        return await self._change(request, name.project, pb.GatePolicy, delete)

    async def ListGatePolicyChanges(
        self, request: pb.ListGatePolicyChangesRequest, context: Context
    ) -> pb.ListGatePolicyChangesResponse:
        """Lists the revisions of a policy."""
        name = PolicyName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: policy_store.list_policy_changes(c, name, page))
        messages = [wire.policy_change_to_proto(row) for row in rows]
        entries, token = cut(messages, page, lambda row: str(row.policy.revision), size_bytes=size_bytes)
        return pb.ListGatePolicyChangesResponse(changes=entries, next_page_token=token)

    async def CheckGates(self, request: pb.CheckGatesRequest, context: Context) -> pb.GateReport:
        """Tells what the gates would say of a move, without making it."""
        name, version = alias_requests.alias_and_version(request.name, request.version, "")
        candidate = await self._examiner.candidate(name, version, current().actor)
        facts = await self._examiner.facts_of(name, version)
        return wire.report_to_proto(await self._examiner.examine(facts, candidate))

    # --- approvals ----------------------------------------------------------------------------------------------------
    async def ApproveMove(self, request: pb.ApproveMoveRequest, context: Context) -> pb.Approval:
        """Logs that the caller agrees with a version behind an alias."""
        return await self._approve(request, is_revoked=False)

    async def RevokeApproval(self, request: pb.RevokeApprovalRequest, context: Context) -> pb.Approval:
        """Logs that the caller does not agree any more."""
        return await self._approve(request, is_revoked=True)

    async def _approve(
        self, request: pb.ApproveMoveRequest | pb.RevokeApprovalRequest, *, is_revoked: bool
    ) -> pb.Approval:
        name, version = alias_requests.alias_and_version(request.name, request.version, "")
        if violations := list(requests.reason_violations(request.reason, "reason")):
            raise invalid_fields(violations)
        wish = ApprovalRow(
            alias=name,
            version=version,
            actor=current().actor,
            is_revoked=is_revoked,
            reason=request.reason,
            time_us=now_us(),
        )
        return await self._change(
            request,
            name.project,
            pb.Approval,
            lambda c: wire.approval_to_proto(approval_store.add_approval(c, wish)),
        )

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Context) -> pb.ListApprovalsResponse:
        """Lists who agreed and who took it back."""
        name = AliasName.parse(request.parent)
        version = 0
        if request.version:
            name, version = alias_requests.alias_and_version(request.parent, request.version, "")
        scope = f"ListApprovals {request.parent} {request.version}"
        page = page_of(request.page_size, request.page_token, scope=scope)
        rows = await self._database.read(lambda c: approval_store.list_approvals(c, name, version, page))
        entries, token = cut(rows, page, lambda row: str(row.sequence))
        return pb.ListApprovalsResponse(approvals=map(wire.approval_to_proto, entries), next_page_token=token)

    # --- evaluations --------------------------------------------------------------------------------------------------
    async def RecordEvaluation(self, request: pb.RecordEvaluationRequest, context: Context) -> pb.VersionEvaluation:
        """Keeps the scores of a version on a data set version."""
        version = ModelVersionName.parse(request.parent)
        dataset = DatasetVersionName.parse(request.dataset)
        require_project(dataset.project)
        scores = requests.checked_scores(request)
        data = scores.to_bytes()
        actor, roles, time_us = current().actor, roles_of_reporter(current()), now_us()

        def record(connection: Connection) -> pb.VersionEvaluation:
            get_model_version(connection, version)
            content = get_dataset_version(connection, dataset).content
            if len(scores.row_ids) > content.rows:
                problem = f"names {len(scores.row_ids)} rows, but {dataset} has {content.rows}"
                raise invalid_fields([FieldViolation("row_ids", problem)])
            row = EvaluationRow(
                version=version,
                dataset=str(dataset),
                dataset_digest=content.manifest.digest,
                metric=request.metric,
                evaluated=Evaluated(
                    digest=scores.digest,
                    rows_digest=scores.rows_digest,
                    rows=len(scores.row_ids),
                    mean=scores.mean,
                ),
                slices=tuple(scores.slices),
                create_time_us=time_us,
                creator=actor,
                roles=roles,
            )
            return wire.evaluation_to_proto(evaluation_store.add_evaluation(connection, row, data))

        return await self._change(request, version.project, pb.VersionEvaluation, record)

    async def ListEvaluations(self, request: pb.ListEvaluationsRequest, context: Context) -> pb.ListEvaluationsResponse:
        """Lists what a version was evaluated on."""
        name = ModelVersionName.parse(request.parent)
        page = page_of_request(request)
        rows = await self._database.read(lambda c: evaluation_store.list_evaluations(c, name, page))
        entries, token = cut(rows, page, evaluation_store.place_of)
        return pb.ListEvaluationsResponse(evaluations=map(wire.evaluation_to_proto, entries), next_page_token=token)


def _digest_of(connection: Connection, dataset: DatasetVersionName) -> str:
    try:
        return get_dataset_version(connection, dataset).content.manifest.digest
    except ServiceError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        problem = f"names {dataset}, which is not stored here"
        raise invalid_fields([FieldViolation("policy.gates", problem)]) from None
