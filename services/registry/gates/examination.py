"""Examines a version for an alias: gathers what is known, computes the comparisons, and asks the gates.

What is known is gathered again in the transaction of the move: when it differs from what was examined, the move is
examined anew, so that no move ever rests on facts that have passed.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from services.grpckit.database import Database
from services.grpckit.errors import FieldViolation, Reason, ServiceError
from services.grpckit.pages import Page
from services.registry.aliases import log as alias_log
from services.registry.aliases.store import find_alias
from services.registry.child_process import Child, started
from services.registry.gates import approval_store, evaluation_store, policy_store, wire
from services.registry.gates.resources import (
    CheckGate,
    ComparisonEvidence,
    ComparisonGate,
    GatePolicy,
    GateReport,
    MetricGate,
    SliceEvidence,
)
from services.registry.gates.rules import (
    Candidate,
    Check,
    CheckKey,
    Evaluated,
    EvaluationKey,
    Facts,
    comparisons,
    judge,
)
from services.registry.gates.scores import Scores, differences
from services.registry.library import now_us
from services.registry.models.report_store import counting_reports
from services.registry.models.store import get_model_version
from services.registry.shared_work import SharedWork
from tuneforge.names import AliasName

MOST_REPORTS = 100
"""Validation reports by those who count that are looked through for a check, newest first."""
_PROCESSES = 2
_LIMIT_S = 110.0


class StaleFacts(Exception):
    """What was examined has changed before the move was made."""


class Examiner:
    """Asks the gates.

    Args:
        database: With all that they are judged by.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._evidence = SharedWork[Any, ComparisonEvidence]()  # the same scores and parameters give the same figures
        self._slots = asyncio.Semaphore(_PROCESSES)

    async def facts_of(self, alias: AliasName, version: int) -> Facts:
        """Gathers what is known."""
        return await self._database.read(lambda c: gather(c, alias, version))

    async def candidate(self, alias: AliasName, version: int, mover: str, *, is_rollback: bool = False) -> Candidate:
        """Returns a version with its own figures.

        Raises:
            ServiceError: `NOT_FOUND`: there is no such version.
        """
        name = alias.parent.version(version)
        found = await self._database.read(lambda c: get_model_version(c, name))
        metrics = wire.metrics_of_record(found.content.record)
        return Candidate(alias=alias, version=version, metrics=metrics, mover=mover, is_rollback=is_rollback)

    async def examine(self, facts: Facts, candidate: Candidate) -> GateReport:
        """Returns what every gate says."""
        evidence = {rule: await self._compare(rule, facts, candidate) for rule in comparisons(facts, candidate)}
        return judge(facts, candidate, evidence, now_us())

    async def _compare(self, rule: ComparisonGate, facts: Facts, candidate: Candidate) -> ComparisonEvidence:
        keys = [(version, rule.dataset_digest, rule.metric, rule.by) for version in (candidate.version, facts.champion)]
        known = (rule, *(facts.evaluations[key].digest for key in keys))
        return await self._evidence.share(known, lambda: self._compute(rule, facts, candidate))

    async def _compute(self, rule: ComparisonGate, facts: Facts, candidate: Candidate) -> ComparisonEvidence:
        model = candidate.alias.parent

        def load(connection: Connection) -> tuple[Scores, Scores]:
            new, old = (
                evaluation_store.scores_of(
                    connection,
                    model.version(number),
                    facts.evaluations[number, rule.dataset_digest, rule.metric, rule.by].digest,
                )
                for number in (candidate.version, facts.champion)
            )
            return new, old

        new, old = await self._database.read(load)
        task = {
            "differences": differences(new, old, lower_is_better=rule.lower_is_better),
            "slices": {guard.slice: new.slices.get(guard.slice, ()) for guard in rule.slices},
            "confidence": rule.confidence,
            "resamples": rule.resamples,
            "seed": rule.seed,
        }
        async with self._slots:
            found = await _in_a_process(task)
        tolerances = {guard.slice: guard.tolerance for guard in rule.slices}
        return ComparisonEvidence(
            **found["whole"],
            slices=tuple(
                SliceEvidence(slice=label, tolerance=tolerances[label], **figures)
                for label, figures in found["slices"].items()
            ),
        )


async def _in_a_process(task: Mapping[str, Any]) -> dict[str, Any]:
    async with started(Child(module="services.registry.gates.bootstrap")) as running, asyncio.timeout(_LIMIT_S):
        out, end = await running.answer(json.dumps(task).encode())
    if end.code:
        raise RuntimeError(f"the comparison's process ended with {end.code}: {end.words}")
    found: dict[str, Any] = json.loads(out)
    return found


# --- what is known ----------------------------------------------------------------------------------------------------
def gather(connection: Connection, alias: AliasName, version: int) -> Facts:
    """Returns all that the gates of an alias are judged by and that may change."""
    fitting = [
        wire.policy_of_row(row)
        for pattern, row in policy_store.policies_of(connection, alias.parent)
        if fits(pattern, alias.alias)
    ]
    policies = tuple(policy for policy in fitting if policy.gates)
    head = find_alias(connection, alias)
    champion = _champion(connection, alias) if head else 0
    sequence = head.sequence if head else 0
    if not policies:
        return Facts(policies=(), champion=champion, sequence=sequence)
    return Facts(
        policies=policies,
        champion=champion,
        sequence=sequence,
        checks=_checks(connection, alias, version, policies),
        evaluations=_evaluations(connection, alias, (version, champion), policies),
        approvers=approval_store.approvers(connection, alias, version),
    )


def fits(pattern: str, alias: str) -> bool:
    """Returns whether an alias' id fits a pattern, in which `*` stands for any characters."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), alias) is not None


def _champion(connection: Connection, alias: AliasName) -> int:
    """Returns the version that the alias names, or named last: a deletion frees no alias of its comparison."""
    page = Page(scope="", size=1, after=None)
    newest = alias_log.list_changes(connection, alias, page)[0]
    return newest.to_version or newest.from_version


def _checks(
    connection: Connection, alias: AliasName, version: int, policies: tuple[GatePolicy, ...]
) -> Mapping[CheckKey, Check]:
    asked = {
        (gate.rule.check, gate.rule.by)
        for policy in policies
        for gate in policy.gates
        if isinstance(gate.rule, CheckGate)
    }
    found: dict[CheckKey, Check] = {}
    for by in sorted({by for _, by in asked}):
        # Sought by reporter, so that reports that do not count push none out of sight that does.
        reports = counting_reports(connection, alias.parent.version(version), by, most=MOST_REPORTS)
        checks = wire.checks_of_records(report.record for report in reports)
        found |= {(name, by): check for name, check in checks.items() if (name, by) in asked}
    return found


def _evaluations(
    connection: Connection, alias: AliasName, versions: tuple[int, int], policies: tuple[GatePolicy, ...]
) -> Mapping[EvaluationKey, Evaluated]:
    rules = [gate.rule for policy in policies for gate in policy.gates]
    asked = {
        (number, rule.dataset_digest, rule.metric, rule.by)
        for rule in rules
        if isinstance(rule, MetricGate | ComparisonGate) and rule.dataset
        for number in versions
        if number
    }
    found: dict[EvaluationKey, Evaluated] = {}
    for number, digest, metric, by in sorted(asked):
        row = evaluation_store.counting_evaluation(connection, alias.parent.version(number), digest, metric, by)
        if row is not None:
            found[number, digest, metric, by] = row.evaluated
    return found


def gate_failed(report: GateReport) -> ServiceError:
    """Returns the refusal of a move, with every gate that is not passed and by how much."""
    failed = [result for result in report.results if not result.is_passed]
    first = failed[0]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    metadata = {
        "name": str(report.alias),
        "version": str(report.alias.parent.version(report.version)),
        "gate": first.gate.id,
        "policy": str(first.policy),
        "failed": ",".join(f"{result.policy.policy}/{result.gate.id}" for result in failed),
    }
    figures = {"observed": first.observed, "required": first.required, "margin": first.margin}
    metadata |= {key: f"{value:.12g}" for key, value in figures.items() if value is not None}
    return ServiceError(
        Reason.GATE_FAILED,
        f"gate {first.gate.id!r} of {first.policy.policy!r} keeps {report.alias.alias} from version {report.version}: "
        f"{first.sentence}{more}",
        fields=[FieldViolation(f"{result.policy.policy}/{result.gate.id}", result.sentence) for result in failed],
        metadata=metadata,
    )
