"""Whose scores and checks the gates count, in a registry with several principals."""

from pathlib import Path

from tests.support.event_loop import on_loop
from tests.support.gated_registry import GatedRegistry, gated_registry, version
from tests.support.postgres import EACH_DATABASE
from tests.support.principals import tokens_file
from tests.support.registry import fields_of, refused, running_registry
from tuneforge.errors import Reason
from tuneforge.v1 import gates_pb2 as pb

pytestmark = EACH_DATABASE

ROLES = {
    "ed": ["editor"],
    "eve": ["editor"],
    "val": ["evaluator"],
    "ada": ["admin"],
    "gateway": ["service"],
}
GOOD, BAD = [1.0] * 30, [0.0] * 30


def safe(*by: str) -> pb.Gate:
    """Returns a gate that asks for the check `safety`."""
    return pb.Gate(id="safe", check=pb.CheckGate(check="safety", by=by))


def right(dataset: str, *by: str) -> pb.Gate:
    """Returns a gate that asks for an accuracy on rows."""
    rule = pb.MetricGate(metric="accuracy", comparator=pb.COMPARATOR_AT_LEAST, threshold=0.8, dataset=dataset, by=by)
    return pb.Gate(id="right", metric=rule)


async def verdicts(gated: GatedRegistry, number: int = 1) -> dict[str, bool]:
    """Returns what each gate says of a version."""
    report = await gated.by("ed").check(number)
    return {result.gate: result.is_passed for result in report.results}


@on_loop
async def test_what_an_editor_reports_moves_no_alias(tmp_path: Path) -> None:
    """Scores and checks of an editor are kept, named, and count for nothing; those of evaluators and services do."""
    async with gated_registry(tmp_path, tokens_file=tokens_file(tmp_path, ROLES)) as gated:
        await gated.by("ada").set_policy(safe(), right(gated.dataset))
        report = await gated.by("ed").report(1, "safety", passed=True, source="the evaluation team")
        assert (report.source, report.creator, list(report.roles)) == ("the evaluation team", "ed", ["editor"])
        kept = await gated.by("ed").record(1, GOOD)
        assert (kept.creator, list(kept.roles)) == ("ed", ["editor"])
        error = await refused(gated.by("ed").move(1), Reason.GATE_FAILED)
        assert fields_of(error) == ["quality/safe", "quality/right"]
        assert all("by admin, evaluator or service" in violation.description for violation in error.fields)
        await gated.by("gateway").report(1, "safety", passed=True)
        await gated.by("val").record(1, GOOD)
        assert (await gated.by("ed").move(1)).version == version(1)
        listed = await gated.stub.ListEvaluations(
            pb.ListEvaluationsRequest(parent=version(1), page_size=1), metadata=gated.by("ed").caller
        )
        request = pb.ListEvaluationsRequest(parent=version(1), page_token=listed.next_page_token)
        rest = await gated.stub.ListEvaluations(request, metadata=gated.by("ed").caller)
        assert [each.creator for each in (*listed.evaluations, *rest.evaluations)] == ["ed", "val"]


@on_loop
async def test_a_service_that_speaks_for_an_editor_lends_no_trust(tmp_path: Path) -> None:
    """A report that a service passes on is its user's, and counts only where a gate names the user."""
    async with gated_registry(tmp_path, tokens_file=tokens_file(tmp_path, ROLES)) as gated:
        await gated.by("ada").set_policy(safe(), right(gated.dataset))
        passed_on = gated.by("gateway", on_behalf_of="ed")
        report = await passed_on.report(1, "safety", passed=True)
        assert (report.creator, list(report.roles)) == ("ed", [])
        await passed_on.record(1, GOOD)
        assert await verdicts(gated) == {"safe": False, "right": False}
        await gated.by("ada").set_policy(safe("ed"), right(gated.dataset, "role:evaluator", "ed"))
        assert await verdicts(gated) == {"safe": True, "right": True}


@on_loop
async def test_nobody_hides_or_replaces_what_a_trusted_reporter_said(tmp_path: Path) -> None:
    """More reports of editors than are looked through hide none that counts; the first scores that count stay."""
    async with gated_registry(tmp_path, tokens_file=tokens_file(tmp_path, ROLES)) as gated:
        await gated.by("ada").set_policy(safe(), right(gated.dataset))
        await gated.by("val").report(1, "safety", passed=False)
        await gated.by("ed").record(1, BAD)
        for _ in range(101):
            await gated.by("ed").report(1, "safety", passed=True)
        await gated.by("val").record(1, GOOD)
        await gated.by("ada").record(1, BAD)
        assert await verdicts(gated) == {"safe": False, "right": True}
        await refused(gated.by("val").record(1, BAD), Reason.ALREADY_EXISTS)
        await gated.by("val").report(1, "safety", passed=True)
        assert await verdicts(gated) == {"safe": True, "right": True}


@on_loop
async def test_a_comparison_takes_the_scores_of_those_who_count(tmp_path: Path) -> None:
    """Champion and challenger are compared by the evaluator's scores, whatever editors recorded beside them."""
    async with gated_registry(tmp_path, {}, tokens_file=tokens_file(tmp_path, ROLES)) as gated:
        rule = pb.ComparisonGate(metric="accuracy", dataset=gated.dataset, resamples=400)
        await gated.by("ed").move(1)
        await gated.by("ada").set_policy(pb.Gate(id="better", comparison=rule))
        for number, said, true in ((1, BAD, GOOD), (2, GOOD, BAD)):
            await gated.by("ed").record(number, said)
            if number == 1:
                await gated.by("val").record(1, true)
        missing = await refused(gated.by("ed").move(2), Reason.GATE_FAILED)
        assert "not recorded for version 2 by admin, evaluator or service" in missing.message
        await gated.by("val").record(2, BAD)
        error = await refused(gated.by("ed").move(2), Reason.GATE_FAILED)
        assert float(error.metadata["observed"]) == -1.0
        rule.by.append("role:editor")
        await gated.by("ada").set_policy(pb.Gate(id="better", comparison=rule))
        assert (await gated.by("eve").move(2)).version == version(2)


@on_loop
async def test_a_role_gained_later_counts_when_it_is_said_again(tmp_path: Path) -> None:
    """Roles are those at the time of the report; the same scores said again with a new role count from then on."""
    async with gated_registry(tmp_path, tokens_file=tokens_file(tmp_path, ROLES)) as gated:
        await gated.by("ada").set_policy(right(gated.dataset))
        await gated.by("ed").record(1, GOOD)
        dataset = gated.dataset
    promoted = tokens_file(tmp_path, {**ROLES, "ed": ["editor", "evaluator"]})
    async with running_registry(tmp_path / "data", tokens_file=promoted) as registry:
        gated = GatedRegistry(registry, dataset)
        assert await verdicts(gated) == {"right": False}
        kept = await gated.by("ed").record(1, GOOD)
        assert list(kept.roles) == ["editor", "evaluator"]
        assert await verdicts(gated) == {"right": True}


@on_loop
async def test_an_evaluator_reports_and_changes_nothing_else(tmp_path: Path) -> None:
    """The role reads and reports; it moves no alias, sets no policy and approves nothing. A viewer reports nothing."""
    roles = {**ROLES, "vera": ["viewer"]}
    async with gated_registry(tmp_path, tokens_file=tokens_file(tmp_path, roles)) as gated:
        val = gated.by("val")
        await refused(val.move(1), Reason.PERMISSION_DENIED)
        await refused(val.set_policy(safe()), Reason.PERMISSION_DENIED)
        await refused(gated.by("vera").record(1, GOOD), Reason.PERMISSION_DENIED)
        await refused(gated.by("vera").report(1, "safety", passed=True), Reason.PERMISSION_DENIED)
        approval = pb.ApproveMoveRequest(name=f"{version(1).partition('/versions')[0]}/aliases/x", version=version(1))
        await refused(gated.stub.ApproveMove(approval, metadata=val.caller), Reason.PERMISSION_DENIED)


@on_loop
async def test_who_counts_is_checked_when_a_policy_is_set(tmp_path: Path) -> None:
    """Unknown roles, names that nobody can have, repeats, and reporters of a version's own figures are refused."""
    async with gated_registry(tmp_path) as gated:
        own = pb.MetricGate(metric="loss", comparator=pb.COMPARATOR_AT_MOST, threshold=1, by=["ed"])
        gates = [
            safe("role:boss", "a\nb", "ed", "ed"),
            right(gated.dataset, *(f"p{number}" for number in range(21))),
            pb.Gate(id="own", metric=own),
        ]
        error = await refused(gated.set_policy(*gates), Reason.INVALID_FIELD)
        assert fields_of(error) == [
            "policy.gates[0].check.by[0]",
            "policy.gates[0].check.by[1]",
            "policy.gates[0].check.by[3]",
            "policy.gates[1].metric.by",
            "policy.gates[2].metric.by",
        ]
