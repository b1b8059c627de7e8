"""What the gates say: pure functions from what is known of a version to results with a sentence each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.registry.gates.resources import (
    ApprovalGate,
    CheckGate,
    Comparator,
    ComparisonEvidence,
    ComparisonGate,
    Gate,
    GatePolicy,
    GateReport,
    GateResult,
    MetricGate,
)
from services.registry.reporters import words
from tuneforge.names import AliasName


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What the newest validation report with a check says of it."""

    is_passed: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What is known of one evaluation without its scores."""

    digest: str
    """Digest of rows, scores and slices."""
    rows_digest: str
    """Digest of the row ids and slices."""
    rows: int
    mean: float


By = tuple[str, ...]
"""Who counts, as a gate says it."""
CheckKey = tuple[str, By]
"""Name of the check, and whose reports count."""
EvaluationKey = tuple[int, str, str, By]
"""Version, digest of the data set version, metric, and whose scores count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the gates of one alias are judged by and that may change; equal facts give equal results."""

    policies: tuple[GatePolicy, ...]
    """Those that fit the alias, by name."""
    champion: int
    """Version that the alias names, or named last before it was deleted; 0: none."""
    sequence: int
    """Number of the alias' last move."""
    checks: Mapping[CheckKey, Check] = field(default_factory=dict)
    evaluations: Mapping[EvaluationKey, Evaluated] = field(default_factory=dict)
    approvers: frozenset[str] = frozenset()
    """Who agrees with the version behind the alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is to be judged."""

    alias: AliasName
    version: int
    metrics: Mapping[str, float]
    """The version's own figures, which never change."""
    mover: str
    """Who wants to move the alias; does not count as an approver."""
    is_rollback: bool = False


def judge(
    facts: Facts, candidate: Candidate, evidence: Mapping[ComparisonGate, ComparisonEvidence], time_us: int
) -> GateReport:
    """Returns what every gate says.

    Args:
        facts: What is known.
        candidate: What is judged.
        evidence: Of the comparisons that `comparisons` asked for.
        time_us: Now.
    """
    skipped = [policy for policy in facts.policies if candidate.is_rollback and policy.rollback_skips_gates]
    asked = [policy for policy in facts.policies if policy not in skipped]
    return GateReport(
        alias=candidate.alias,
        version=candidate.version,
        champion=facts.champion,
        results=tuple(_result(policy, gate, facts, candidate, evidence) for policy in asked for gate in policy.gates),
        skipped=tuple(policy.name for policy in skipped),
        time_us=time_us,
    )


def comparisons(facts: Facts, candidate: Candidate) -> Iterator[ComparisonGate]:
    """Yields the comparisons for which there is something to compute."""
    for policy in facts.policies:
        if not (candidate.is_rollback and policy.rollback_skips_gates):
            for gate in policy.gates:
                if isinstance(gate.rule, ComparisonGate) and not _obstacle(gate.rule, facts, candidate):
                    yield gate.rule


def _result(
    policy: GatePolicy,
    gate: Gate,
    facts: Facts,
    candidate: Candidate,
    evidence: Mapping[ComparisonGate, ComparisonEvidence],
) -> GateResult:
    found = _Finding(is_passed=False, sentence="")
    match gate.rule:
        case MetricGate() as rule:
            found = _metric(rule, facts, candidate)
        case CheckGate() as rule:
            found = _check(rule, facts)
        case ApprovalGate() as rule:
            found = _approval(rule, facts, candidate)
        case ComparisonGate() as rule:
            found = _comparison(rule, facts, candidate, evidence.get(rule))
    return GateResult(
        policy=policy.name,
        revision=policy.revision,
        gate=gate,
        is_passed=found.is_passed,
        observed=found.observed,
        required=found.required,
        margin=found.margin,
        sentence=found.sentence,
        evidence=found.evidence,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    is_passed: bool
    sentence: str
    observed: float | None = None
    required: float | None = None
    margin: float | None = None
    evidence: ComparisonEvidence | None = None


def _metric(rule: MetricGate, facts: Facts, candidate: Candidate) -> _Finding:
    if rule.dataset:
        evaluated = facts.evaluations.get((candidate.version, rule.dataset_digest, rule.metric, rule.by))
        value, place = evaluated.mean if evaluated else None, f" on {rule.dataset}"
    else:
        value, place = candidate.metrics.get(rule.metric), ""
    asked = f"{rule.comparator.words} {rule.threshold:g}"
    if value is None:
        who = f" by {words(rule.by)}" if rule.dataset else ""
        sentence = f"{rule.metric}{place} is not recorded for version {candidate.version}{who}; it has to be {asked}"
        return _Finding(is_passed=False, required=rule.threshold, sentence=sentence)
    is_floor = rule.comparator in {Comparator.AT_LEAST, Comparator.MORE_THAN}
    margin = value - rule.threshold if is_floor else rule.threshold - value
    # Not a number compares false with everything, and so never passes.
    is_passed = margin >= 0 if rule.comparator in {Comparator.AT_LEAST, Comparator.AT_MOST} else margin > 0
    by = f"passed by {margin:.6g}" if is_passed else f"missed by {-margin:.6g}"
    sentence = f"{rule.metric}{place} is {value:.6g} and has to be {asked}: {by}"
    return _Finding(is_passed=is_passed, observed=value, required=rule.threshold, margin=margin, sentence=sentence)


def _check(rule: CheckGate, facts: Facts) -> _Finding:
    check = facts.checks.get((rule.check, rule.by))
    if check is None:
        sentence = f"no validation report has the check {rule.check!r} by {words(rule.by)}"
        return _Finding(is_passed=False, required=1.0, sentence=sentence)
    said = f": {check.message}" if check.message else ""
    sentence = f"the check {rule.check!r} {'passed' if check.is_passed else 'did not pass'}{said}"
    observed = float(check.is_passed)
    return _Finding(
        is_passed=check.is_passed, observed=observed, required=1.0, margin=observed - 1.0, sentence=sentence
    )


def _approval(rule: ApprovalGate, facts: Facts, candidate: Candidate) -> _Finding:
    approvers = sorted(facts.approvers - {candidate.mover})
    margin = len(approvers) - rule.approvals
    by = f" ({', '.join(approvers)})" if approvers else ""
    sentence = f"{len(approvers)} of {rule.approvals} approvals by others than {candidate.mover}{by}"
    return _Finding(
        is_passed=margin >= 0,
        observed=float(len(approvers)),
        required=float(rule.approvals),
        margin=float(margin),
        sentence=sentence,
    )


def _comparison(
    rule: ComparisonGate, facts: Facts, candidate: Candidate, evidence: ComparisonEvidence | None
) -> _Finding:
    if not facts.champion or facts.champion == candidate.version:
        which = "the alias never named a version" if not facts.champion else "the alias names this version already"
        return _Finding(is_passed=True, required=rule.min_effect, sentence=f"{which}: nothing to compare with")
    obstacle = _obstacle(rule, facts, candidate)
    if obstacle or evidence is None:
        return _Finding(is_passed=False, required=rule.min_effect, sentence=obstacle or "it could not be computed")
    margin = evidence.lower_bound - rule.min_effect
    is_better = margin >= 0 if rule.min_effect else margin > 0
    bad = [part for part in evidence.slices if not part.is_passed]
    words = "at least" if rule.min_effect else "above"
    sentence = (
        f"{rule.metric} on {evidence.rows} rows of {rule.dataset}: {evidence.effect:+.6g} against version "
        f"{facts.champion}, with {100 * rule.confidence:g} % confidence at least {evidence.lower_bound:+.6g}; it "
        f"has to be {words} {rule.min_effect:g}"
    )
    for part in bad:
        loss = (
            f"it may be worse by {-part.lower_bound:.6g}, more than {part.tolerance:g}"
            if part.rows > 1
            else "nothing is known"
        )
        sentence += f"; on the slice {part.slice!r} ({part.rows} rows) {loss}"
    worst = min([margin, *(part.lower_bound + part.tolerance for part in bad)])
    return _Finding(
        is_passed=is_better and not bad,
        observed=evidence.lower_bound,
        required=rule.min_effect,
        margin=worst,
        sentence=sentence,
        evidence=evidence,
    )


def _obstacle(rule: ComparisonGate, facts: Facts, candidate: Candidate) -> str:
    """Returns why a comparison cannot be computed; empty when it can, or need not be since there is no champion."""
    if not facts.champion or facts.champion == candidate.version:
        return "there is nothing to compare with"
    found = {
        version: facts.evaluations.get((version, rule.dataset_digest, rule.metric, rule.by))
        for version in (candidate.version, facts.champion)
    }
    missing = [str(version) for version, evaluated in found.items() if evaluated is None]
    if missing:
        whose = f"{' and '.join(missing)} by {words(rule.by)}"
        return f"{rule.metric} on {rule.dataset} is not recorded for version {whose}"
    new, old = found[candidate.version], found[facts.champion]
    if new is None or old is None:
        return "nothing is recorded"
    if new.rows_digest != old.rows_digest:
        return (
            f"{rule.metric} on {rule.dataset} is recorded for other rows or slices: {new.rows} rows of version "
            f"{candidate.version}, {old.rows} of version {facts.champion}"
        )
    if new.rows < rule.min_rows:
        return f"{rule.metric} on {rule.dataset} has {new.rows} rows; a comparison takes {rule.min_rows}"
    return ""
