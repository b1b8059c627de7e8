"""Gates of aliases: policies, what they would say, approvals; and the scores that comparisons rest on."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from tuneforge import _gate_wire
from tuneforge import _short_names as names
from tuneforge._connections import Connections
from tuneforge._transport import new_request_id
from tuneforge.aliases import version_name
from tuneforge.errors import InvalidArgument, Reason
from tuneforge.gate_files import policy_of, read_policy
from tuneforge.gate_values import (
    Approval,
    ComparisonGate,
    Gate,
    GatePolicy,
    GatePolicyChange,
    GateReport,
    MetricGate,
    RecordedEvaluation,
)
from tuneforge.v1 import gates_pb2 as pb

__all__ = ["Evaluations", "Gates"]

_GATES_DEADLINE_S = 120.0
"""A comparison draws thousands of resamples."""


class Gates:
    """Gates of the models of one project; `client.gates`."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def set(
        self,
        model: str,
        policy_id: str,
        policy: GatePolicy | Mapping[str, object] | str | os.PathLike[str],
        *,
        expected: str | GatePolicy | None = None,
        reason: str = "",
    ) -> GatePolicy:
        """Makes a policy or changes it; needs the permission `gates.admin`.

        Args:
            model: Id or name of the model.
            policy_id: Id of the policy.
            policy: The policy, a mapping in the form of a file, or the path of a TOML or JSON file (see
                `tuneforge.gate_files`). Data sets in it may be short: `held-out/1`.
            expected: The policy as it was read (or its etag, or `ABSENT`): it is changed only when nobody did since.
            reason: Why, for the log.

        Raises:
            InvalidArgument: With all that is wrong with it.
            Conflict: Somebody changed it since `expected` was read.
        """
        if isinstance(policy, Mapping):
            policy = policy_of(policy)
        elif not isinstance(policy, GatePolicy):
            policy = read_policy(policy)
        etag = expected.etag if isinstance(expected, GatePolicy) else expected or ""
        message = pb.GatePolicy(
            name=names.policy(self._project, model, policy_id),
            alias_pattern=policy.alias,
            gates=(_gate_wire.gate_to_proto(self._whole(gate)) for gate in policy.gates),
            rollback_skips_gates=policy.rollback_skips_gates,
            etag=etag,
        )
        registry = self._connections.registry
        request = pb.SetGatePolicyRequest(policy=message, reason=reason, request_id=new_request_id())
        return _gate_wire.policy(registry.call(registry.stub.SetGatePolicy, request))

    def _whole(self, gate: Gate) -> Gate:
        if isinstance(gate, MetricGate | ComparisonGate) and gate.dataset:
            return replace(gate, dataset=names.dataset_version(self._project, gate.dataset))
        return gate

    def get(self, model: str, policy_id: str, *, revision: int = 0) -> GatePolicy:
        """Returns a policy, or one of its revisions."""
        registry = self._connections.registry
        request = pb.GetGatePolicyRequest(name=names.policy(self._project, model, policy_id), revision=revision)
        return _gate_wire.policy(registry.call(registry.stub.GetGatePolicy, request))

    def list(self, model: str) -> Iterator[GatePolicy]:
        """Yields the policies of a model by id."""
        registry = self._connections.registry
        request = pb.ListGatePoliciesRequest(parent=names.model(self._project, model))
        for page in registry.pages(registry.stub.ListGatePolicies, request):
            yield from map(_gate_wire.policy, page.policies)

    def delete(self, model: str, policy_id: str, *, etag: str = "", reason: str = "") -> None:
        """Deletes a policy, which is logged; needs the permission `gates.admin`."""
        registry = self._connections.registry
        request = pb.DeleteGatePolicyRequest(
            name=names.policy(self._project, model, policy_id), etag=etag, reason=reason, request_id=new_request_id()
        )
        registry.call(registry.stub.DeleteGatePolicy, request)

    def log(self, model: str, policy_id: str) -> Iterator[GatePolicyChange]:
        """Yields the revisions of a policy, newest first."""
        registry = self._connections.registry
        request = pb.ListGatePolicyChangesRequest(parent=names.policy(self._project, model, policy_id))
        for page in registry.pages(registry.stub.ListGatePolicyChanges, request):
            yield from map(_gate_wire.policy_change, page.changes)

    def check(self, model: str, alias: str, version: str | int) -> GateReport:
        """Returns what the gates of an alias say of a version, without moving it."""
        request = pb.CheckGatesRequest(
            name=names.alias(self._project, model, alias),
            version=version_name(self._connections, self._project, model, version),
        )
        registry = self._connections.registry
        return _gate_wire.report(registry.call(registry.stub.CheckGates, request, timeout_s=_GATES_DEADLINE_S))

    def approve(self, model: str, alias: str, version: str | int, *, reason: str = "") -> Approval:
        """Agrees with a version behind an alias."""
        request = pb.ApproveMoveRequest(
            name=names.alias(self._project, model, alias),
            version=version_name(self._connections, self._project, model, version),
            reason=reason,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return _gate_wire.approval(registry.call(registry.stub.ApproveMove, request))

    def revoke_approval(self, model: str, alias: str, version: str | int, *, reason: str = "") -> Approval:
        """Takes one's own approval back."""
        request = pb.RevokeApprovalRequest(
            name=names.alias(self._project, model, alias),
            version=version_name(self._connections, self._project, model, version),
            reason=reason,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return _gate_wire.approval(registry.call(registry.stub.RevokeApproval, request))

    def approvals(self, model: str, alias: str, version: str | int | None = None) -> Iterator[Approval]:
        """Yields the approvals for an alias and those taken back, newest first; of one version, or of all."""
        whole = "" if version is None else version_name(self._connections, self._project, model, version)
        registry = self._connections.registry
        request = pb.ListApprovalsRequest(parent=names.alias(self._project, model, alias), version=whole)
        for page in registry.pages(registry.stub.ListApprovals, request):
            yield from map(_gate_wire.approval, page.approvals)


class Evaluations:
    """Scores of versions, row by row; `client.evaluations`."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def record(
        self,
        version: str,
        dataset: str,
        metric: str,
        scores: Mapping[str, float],
        *,
        slices: Mapping[str, Collection[str]] | None = None,
    ) -> RecordedEvaluation:
        """Keeps the scores that the caller gives a version on a data set version, for good; gates say whose count.

        Args:
            version: `id/3`, `id@alias` or whole name.
            dataset: `id/3` or whole name of the data set version.
            metric: Name of the metric; who computes it in another way gives it another name.
            scores: Row id (64 hexadecimal digits) -> score; at most 40000.
            slices: Name -> ids of the rows in it.

        Raises:
            AlreadyExists: The caller gave other scores before.
        """
        row_ids = tuple(scores)
        place = {row_id: number for number, row_id in enumerate(row_ids)}
        parts = [
            pb.EvaluationSlice(slice=label, positions=_positions(label, rows, place))
            for label, rows in (slices or {}).items()
        ]
        request = pb.RecordEvaluationRequest(
            parent=version_name(self._connections, self._project, None, version),
            dataset=names.dataset_version(self._project, dataset),
            metric=metric,
            row_ids=row_ids,
            scores=scores.values(),
            slices=parts,
            request_id=new_request_id(),
        )
        registry = self._connections.registry
        return _gate_wire.evaluation(registry.call(registry.stub.RecordEvaluation, request))

    def list(self, version: str) -> Iterator[RecordedEvaluation]:
        """Yields what a version was evaluated on, by data set, metric and creator."""
        whole = version_name(self._connections, self._project, None, version)
        registry = self._connections.registry
        for page in registry.pages(registry.stub.ListEvaluations, pb.ListEvaluationsRequest(parent=whole)):
            yield from map(_gate_wire.evaluation, page.evaluations)


def _positions(label: str, rows: Iterable[str], place: Mapping[str, int]) -> list[int]:
    rows = list(rows)
    missing = [row for row in rows if row not in place]
    if missing:
        message = f"the slice {label!r} names {len(missing)} rows without a score, the first is {missing[0][:80]!r}"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Name rows that have a score.")
    return [place[row] for row in rows]
