"""Gates of an alias over a real socket: policies with history, refusals with figures, approvals, forced moves."""

import hashlib
import json
from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.gated_registry import ALIAS, MODEL, POLICY, acting, approvals, at_least, gated_registry, version
from tests.support.postgres import EACH_DATABASE
from tests.support.registry import PROJECT, fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import aliases_pb2, validations_pb2
from tuneforge.v1 import gates_pb2 as pb

pytestmark = EACH_DATABASE


@on_loop
async def test_a_version_below_the_threshold_is_refused_with_its_figures(tmp_path: Path) -> None:
    """GATE_FAILED says which gate, what was found, what was asked and by how much; the alias stays where it is."""
    async with gated_registry(tmp_path, {"accuracy": 0.9, "loss": 0.2}, {"accuracy": 0.75, "loss": 0.9}) as gated:
        loss = pb.MetricGate(metric="loss", comparator=pb.COMPARATOR_AT_MOST, threshold=0.5)
        await gated.set_policy(at_least(0.8), pb.Gate(id="loss-ceiling", metric=loss))
        moved = await gated.move(2)
        assert moved.version == version(2)
        error = await refused(gated.move(3), Reason.GATE_FAILED)
        assert fields_of(error) == ["quality/accuracy-floor", "quality/loss-ceiling"]
        assert error.metadata["margin"] == "-0.05"
        assert (error.metadata["observed"], error.metadata["required"]) == ("0.75", "0.8")
        assert "missed by 0.05" in error.message
        await refused(gated.move(1), Reason.GATE_FAILED)
        unknown = pb.CheckGatesRequest(name=ALIAS, version=version(9))
        await refused(gated.stub.CheckGates(unknown), Reason.NOT_FOUND)
        assert await gated.stub.GetAlias(aliases_pb2.GetAliasRequest(name=ALIAS)) == moved
        report = await gated.check(3)
        assert [(each.gate, each.is_passed) for each in report.results] == [
            ("accuracy-floor", False),
            ("loss-ceiling", False),
        ]
        assert (report.champion, report.is_passed) == (version(2), False)
        assert (await gated.check(2)).is_passed
        log = await gated.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=ALIAS))
        assert [each.gates.is_passed for each in log.changes] == [True]
        assert log.changes[0].gates.results[0].observed == 0.9


@on_loop
async def test_other_aliases_are_not_kept_by_a_gate(tmp_path: Path) -> None:
    """A policy holds for the aliases that fit its pattern; where several fit, all gates have to be passed."""
    async with gated_registry(tmp_path, {"accuracy": 0.7}) as gated:
        await gated.set_policy(at_least(0.6), alias_pattern="prod*")
        await gated.set_policy(at_least(0.8), name=f"{MODEL}/policies/strict", alias_pattern="*-eu")
        await gated.move(2)
        await gated.move(1, name=f"{MODEL}/aliases/staging")
        error = await refused(gated.move(2, name=f"{MODEL}/aliases/production-eu"), Reason.GATE_FAILED)
        assert fields_of(error) == ["strict/accuracy-floor"]


@on_loop
async def test_approvals_are_by_others_and_can_be_taken_back(tmp_path: Path) -> None:
    """Two others have to agree; the mover and those who took it back do not count; approvals are for one version."""
    async with gated_registry(tmp_path, {}, {}) as gated:
        stub = gated.stub
        await gated.set_policy(approvals(2))
        approve = pb.ApproveMoveRequest(name=ALIAS, version=version(2), reason="looks good")
        revoke = pb.RevokeApprovalRequest(name=ALIAS, version=version(2), reason="on a second look")
        await refused(stub.RevokeApproval(revoke, metadata=acting("bob")), Reason.NOT_FOUND)
        for actor in ("ada", "bob", "eve"):
            given = await stub.ApproveMove(approve, metadata=acting(actor))
            assert (given.actor, given.is_revoked) == (actor, False)
        await stub.RevokeApproval(revoke, metadata=acting("eve"))
        error = await refused(gated.move(2), Reason.GATE_FAILED)
        assert (error.metadata["observed"], error.metadata["margin"]) == ("1", "-1")
        await stub.ApproveMove(approve, metadata=acting("eve"))
        await gated.move(2)
        await refused(gated.move(3), Reason.GATE_FAILED)
        log = await stub.ListApprovals(pb.ListApprovalsRequest(parent=ALIAS, version=version(2)))
        assert [(each.actor, each.is_revoked) for each in log.approvals] == [
            ("eve", False),
            ("eve", True),
            ("eve", False),
            ("bob", False),
            ("ada", False),
        ]
        assert not (await stub.ListApprovals(pb.ListApprovalsRequest(parent=ALIAS, version=version(3)))).approvals
        await refused(stub.ApproveMove(pb.ApproveMoveRequest(name=ALIAS, version=version(9))), Reason.NOT_FOUND)
        wrong = pb.ApproveMoveRequest(name=ALIAS, version=f"{PROJECT}/models/other/versions/1")
        assert fields_of(await refused(stub.ApproveMove(wrong), Reason.INVALID_FIELD)) == ["version"]


@on_loop
async def test_required_checks_come_from_the_newest_report(tmp_path: Path) -> None:
    """A check that no report has refuses; the newest report that has it decides."""
    async with gated_registry(tmp_path) as gated:
        await gated.set_policy(pb.Gate(id="safe", check=pb.CheckGate(check="safety")))
        await refused(gated.move(1), Reason.GATE_FAILED)
        for passed in (True, False):
            check = validations_pb2.CheckResult(check_name="safety", passed=passed, message="3 rows leak")
            report = validations_pb2.ValidationReport(checks=[check])
            request = validations_pb2.CreateValidationReportRequest(parent=version(1), report=report)
            await gated.stub.CreateValidationReport(request)
            assert (await gated.check(1)).is_passed is passed
        error = await refused(gated.move(1), Reason.GATE_FAILED)
        assert "3 rows leak" in error.message


@on_loop
async def test_a_rollback_asks_the_gates_unless_the_policy_lets_it_through(tmp_path: Path) -> None:
    """Gates set after a version was named refuse a rollback to it; with `rollback_skips_gates` the log tells of it."""
    async with gated_registry(tmp_path, {"accuracy": 0.5}, {"accuracy": 0.9}) as gated:
        await gated.move(2)
        await gated.move(3)
        await gated.set_policy(at_least(0.8))
        rollback = aliases_pb2.RollbackAliasRequest(name=ALIAS, reason="3 is slow")
        await refused(gated.stub.RollbackAlias(rollback), Reason.GATE_FAILED)
        await gated.set_policy(at_least(0.8), rollback_skips_gates=True)
        assert (await gated.stub.RollbackAlias(rollback)).version == version(2)
        log = await gated.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=ALIAS))
        assert list(log.changes[0].gates.skipped_policies) == [POLICY]
        assert not log.changes[0].gates.results


@on_loop
async def test_a_forced_move_has_a_reason_and_is_logged_as_forced(tmp_path: Path) -> None:
    """Without a reason it is INVALID_FIELD; the log keeps what the gates said; a move that passes is not forced."""
    async with gated_registry(tmp_path, {"accuracy": 0.9}) as gated:
        await gated.set_policy(at_least(0.8))
        assert fields_of(await refused(gated.move(1, force=True), Reason.INVALID_FIELD)) == ["reason"]
        await gated.move(1, force=True, reason="the model before burns")
        await gated.move(2, force=True, reason="just in case")
        log = await gated.stub.ListAliasChanges(aliases_pb2.ListAliasChangesRequest(parent=ALIAS))
        assert [(each.is_forced, each.gates.is_passed) for each in log.changes] == [(False, True), (True, False)]


@on_loop
async def test_editors_neither_force_moves_nor_set_gates(tmp_path: Path) -> None:
    """Both are for admins: who may move an alias cannot lower its gates."""
    async with gated_registry(tmp_path, {"accuracy": 0.9}) as gated:
        await gated.set_policy(at_least(0.8))
    tokens = [
        {"token_sha256": hashlib.sha256(name.encode()).hexdigest(), "principal": name, "roles": [role]}
        | {"projects": ["default"], "is_service": False}
        for name, role in (("ed", "editor"), ("ann", "admin"))
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    async with running_registry(tmp_path / "data", tokens_file=tmp_path / "tokens.json") as registry:
        editor, admin = ([("authorization", f"Bearer {name}")] for name in ("ed", "ann"))
        move = aliases_pb2.SetAliasRequest(name=ALIAS, version=version(1), reason="now")
        await refused(registry.stub.SetAlias(move, metadata=editor), Reason.GATE_FAILED)
        move.force = True
        await refused(registry.stub.SetAlias(move, metadata=editor), Reason.PERMISSION_DENIED)
        policy = pb.SetGatePolicyRequest(policy=pb.GatePolicy(name=POLICY, alias_pattern="*"))
        await refused(registry.stub.SetGatePolicy(policy, metadata=editor), Reason.PERMISSION_DENIED)
        delete = pb.DeleteGatePolicyRequest(name=POLICY)
        await refused(registry.stub.DeleteGatePolicy(delete, metadata=editor), Reason.PERMISSION_DENIED)
        assert (await registry.stub.SetAlias(move, metadata=admin)).version == version(1)


@on_loop
async def test_a_policy_has_revisions_and_an_etag(tmp_path: Path) -> None:
    """Each change is a revision that stays readable; stale etags are refused; a deletion is a revision too."""
    async with gated_registry(tmp_path) as gated:
        stub = gated.stub
        first = await gated.set_policy(at_least(0.8), etag="absent")
        assert (first.revision, first.actor) == (1, "local")
        assert await gated.set_policy(at_least(0.8)) == first, "the same content is the same revision"
        await refused(gated.set_policy(at_least(0.7), etag="absent"), Reason.ETAG_MISMATCH)
        second = await gated.set_policy(at_least(0.7), etag=first.etag)
        assert second.revision == 2
        await refused(gated.set_policy(at_least(0.1), etag=first.etag), Reason.ETAG_MISMATCH)
        assert await stub.GetGatePolicy(pb.GetGatePolicyRequest(name=POLICY)) == second
        assert await stub.GetGatePolicy(pb.GetGatePolicyRequest(name=POLICY, revision=1)) == first
        await refused(stub.GetGatePolicy(pb.GetGatePolicyRequest(name=POLICY, revision=9)), Reason.NOT_FOUND)
        listed = await stub.ListGatePolicies(pb.ListGatePoliciesRequest(parent=MODEL))
        assert list(listed.policies) == [second]
        delete = pb.DeleteGatePolicyRequest(name=POLICY, etag=second.etag, reason="no more", request_id="d")
        assert await stub.DeleteGatePolicy(delete) == await stub.DeleteGatePolicy(delete)
        await refused(stub.DeleteGatePolicy(pb.DeleteGatePolicyRequest(name=POLICY)), Reason.NOT_FOUND)
        await refused(stub.GetGatePolicy(pb.GetGatePolicyRequest(name=POLICY)), Reason.NOT_FOUND)
        assert not (await stub.ListGatePolicies(pb.ListGatePoliciesRequest(parent=MODEL))).policies
        again = await gated.set_policy(at_least(0.5), etag="absent")
        assert again.revision == 4
        pages = pb.ListGatePolicyChangesRequest(parent=POLICY, page_size=3)
        log = await stub.ListGatePolicyChanges(pages)
        pages.page_token = log.next_page_token
        rest = await stub.ListGatePolicyChanges(pages)
        told = [(each.policy.revision, each.is_deletion, each.reason) for each in [*log.changes, *rest.changes]]
        assert told == [(4, False, "house"), (3, True, "no more"), (2, False, "house"), (1, False, "house")]


@on_loop
async def test_all_that_is_wrong_with_a_policy_is_told_at_once(tmp_path: Path) -> None:
    """Every malformed gate is named; nothing is kept."""
    async with gated_registry(tmp_path) as gated:
        comparison = pb.ComparisonGate(
            metric="",
            dataset="x",
            min_effect=-1,
            confidence=0.999,
            seed=-1,
            min_rows=5,
            slices=[pb.SliceGuard(slice="", tolerance=-1)],
        )
        gates = [
            pb.Gate(id="A"),
            pb.Gate(id="b", metric=pb.MetricGate(metric="m", threshold=float("nan"))),
            pb.Gate(id="b", approval=pb.ApprovalGate(approvals=0)),
            pb.Gate(id="c", comparison=comparison),
            pb.Gate(id="d", check=pb.CheckGate()),
        ]
        error = await refused(gated.set_policy(*gates, alias_pattern="Prod?"), Reason.INVALID_FIELD)
        assert fields_of(error) == [
            "policy.alias_pattern",
            "policy.gates[0].id",
            "policy.gates[0]",
            "policy.gates[1].metric.comparator",
            "policy.gates[1].metric.threshold",
            "policy.gates[2].id",
            "policy.gates[2].approval.approvals",
            "policy.gates[3].comparison.metric",
            "policy.gates[3].comparison.dataset",
            "policy.gates[3].comparison.min_effect",
            "policy.gates[3].comparison.resamples",
            "policy.gates[3].comparison.seed",
            "policy.gates[3].comparison.min_rows",
            "policy.gates[3].comparison.slices[0].slice",
            "policy.gates[3].comparison.slices[0].tolerance",
            "policy.gates[4].check.check",
        ]
        unknown = pb.ComparisonGate(metric="m", dataset=f"{PROJECT}/datasets/none/versions/1")
        error = await refused(gated.set_policy(pb.Gate(id="c", comparison=unknown)), Reason.INVALID_FIELD)
        assert "not stored here" in error.message
        await refused(gated.set_policy(name=f"{PROJECT}/models/none/policies/q"), Reason.NOT_FOUND)
        await refused(
            gated.stub.ListGatePolicyChanges(pb.ListGatePolicyChangesRequest(parent=POLICY)), Reason.NOT_FOUND
        )
