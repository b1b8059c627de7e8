"""Fields of requests about gates: policies and scores, all problems at once."""

import math
from collections.abc import Iterator

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.aliases.resources import LONGEST_REASON
from services.registry.gates.resources import (
    DEFAULT_CONFIDENCE,
    DEFAULT_RESAMPLES,
    LONGEST_TEXT,
    MOST_GATES,
)
from services.registry.gates.scores import MOST_ROWS, MOST_SLICES, Scores
from services.registry.manifests import listed
from services.registry.reporters import reporter_violations
from tuneforge.names import ID_FORM, DatasetVersionName, InvalidName, PolicyName, is_digest, is_id
from tuneforge.v1 import gates_pb2 as pb

MOST_APPROVALS = 20
MOST_GUARDS = 20
FEWEST_BEYOND = 10
"""Resamples that a bound must have beyond it: a 99.9 % bound from 2000 resamples would rest on two of them."""
_PATTERN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-*")


def checked_policy(request: pb.SetGatePolicyRequest) -> PolicyName:
    """Returns the name of a policy that is well formed.

    Raises:
        InvalidName: The name is not one of a policy.
        ServiceError: `INVALID_FIELD` with all that is wrong.
    """
    policy = request.policy
    name = PolicyName.parse(policy.name)
    violations = [*_policy_violations(policy), *reason_violations(request.reason, "reason")]
    if violations:
        raise invalid_fields(listed(violations))
    return name


def reason_violations(reason: str, field: str) -> Iterator[FieldViolation]:
    """Yields what is wrong with a reason."""
    if len(reason) > LONGEST_REASON:
        yield FieldViolation(field, f"has {len(reason)} characters; at most {LONGEST_REASON} are taken")


def _policy_violations(policy: pb.GatePolicy) -> Iterator[FieldViolation]:
    pattern = policy.alias_pattern
    if not 1 <= len(pattern) <= 63 or not _PATTERN_CHARACTERS.issuperset(pattern):
        problem = f"is {pattern[:80]!r}; give 1 to 63 of a-z 0-9 - and * for any characters"
        yield FieldViolation("policy.alias_pattern", problem)
    if len(policy.gates) > MOST_GATES:
        yield FieldViolation("policy.gates", f"has {len(policy.gates)} entries; at most {MOST_GATES} are taken")
        return
    seen: set[str] = set()
    for number, gate in enumerate(policy.gates):
        place = f"policy.gates[{number}]"
        if not is_id(gate.id):
            yield FieldViolation(f"{place}.id", f"is {gate.id[:80]!r}; give {ID_FORM}")
        if gate.id in seen:
            yield FieldViolation(f"{place}.id", f"is {gate.id!r} a second time")
        seen.add(gate.id)
        yield from _rule_violations(place, gate)


def _rule_violations(place: str, gate: pb.Gate) -> Iterator[FieldViolation]:
    match gate.WhichOneof("rule"):
        case None:
            yield FieldViolation(place, "has no rule; set metric, check, comparison or approval")
        case "metric":
            yield from _metric_violations(f"{place}.metric", gate.metric)
        case "check":
            yield from text_violations(f"{place}.check.check", gate.check.check)
            yield from reporter_violations(f"{place}.check.by", gate.check.by)
        case "approval" if not 1 <= gate.approval.approvals <= MOST_APPROVALS:
            problem = f"is {gate.approval.approvals}; give 1 to {MOST_APPROVALS}"
            yield FieldViolation(f"{place}.approval.approvals", problem)
        case "comparison":
            yield from _comparison_violations(f"{place}.comparison", gate.comparison)


def _metric_violations(place: str, rule: pb.MetricGate) -> Iterator[FieldViolation]:
    yield from text_violations(f"{place}.metric", rule.metric)
    if rule.comparator not in pb.Comparator.values() or not rule.comparator:
        problem = "is not set; give AT_LEAST, MORE_THAN, AT_MOST or LESS_THAN"
        yield FieldViolation(f"{place}.comparator", problem)
    if not math.isfinite(rule.threshold):
        yield FieldViolation(f"{place}.threshold", f"is {rule.threshold}; give a finite number")
    if rule.dataset:
        yield from _dataset_violations(f"{place}.dataset", rule.dataset)
        yield from reporter_violations(f"{place}.by", rule.by)
    elif rule.by:
        yield FieldViolation(f"{place}.by", "is set without dataset; a version's own figures come from its run alone")


def _comparison_violations(place: str, rule: pb.ComparisonGate) -> Iterator[FieldViolation]:
    yield from text_violations(f"{place}.metric", rule.metric)
    yield from _dataset_violations(f"{place}.dataset", rule.dataset)
    yield from reporter_violations(f"{place}.by", rule.by)
    if not (math.isfinite(rule.min_effect) and rule.min_effect >= 0):
        yield FieldViolation(f"{place}.min_effect", f"is {rule.min_effect}; give 0 or more")
    confidence, resamples = rule.confidence or DEFAULT_CONFIDENCE, rule.resamples or DEFAULT_RESAMPLES
    is_confidence, is_resamples = 0.5 <= confidence <= 0.9999, 200 <= resamples <= 20_000
    if not is_confidence:
        yield FieldViolation(f"{place}.confidence", f"is {confidence}; give 0.5 to 0.9999")
    if not is_resamples:
        yield FieldViolation(f"{place}.resamples", f"is {resamples}; give 200 to 20000")
    if is_confidence and is_resamples and resamples * (1 - confidence) < FEWEST_BEYOND - 1e-6:
        needed = math.ceil(FEWEST_BEYOND / (1 - confidence) - 1e-6)
        problem = f"is {resamples}, too few for a confidence of {confidence:g}; give {needed} or lower the confidence"
        yield FieldViolation(f"{place}.resamples", problem)
    if rule.seed < 0:
        yield FieldViolation(f"{place}.seed", f"is {rule.seed}; give 0 or more")
    if rule.min_rows and not 10 <= rule.min_rows <= MOST_ROWS:
        yield FieldViolation(f"{place}.min_rows", f"is {rule.min_rows}; give 10 to {MOST_ROWS}")
    if len(rule.slices) > MOST_GUARDS:
        yield FieldViolation(f"{place}.slices", f"has {len(rule.slices)} entries; at most {MOST_GUARDS} are taken")
    for number, guard in enumerate(rule.slices[:MOST_GUARDS]):
        yield from text_violations(f"{place}.slices[{number}].slice", guard.slice)
        if not (math.isfinite(guard.tolerance) and guard.tolerance >= 0):
            yield FieldViolation(f"{place}.slices[{number}].tolerance", f"is {guard.tolerance}; give 0 or more")


def _dataset_violations(place: str, text: str) -> Iterator[FieldViolation]:
    try:
        DatasetVersionName.parse(text)
    except InvalidName as error:
        yield FieldViolation(place, str(error) if text else "is not set; give a data set version")


def text_violations(place: str, text: str) -> Iterator[FieldViolation]:
    """Yields what is wrong with the name of a metric, a check or a slice."""
    if not 1 <= len(text) <= LONGEST_TEXT or not text.isprintable():
        yield FieldViolation(place, f"is {text[:120]!r}; give 1 to {LONGEST_TEXT} printable characters")


def checked_scores(request: pb.RecordEvaluationRequest) -> Scores:
    """Returns the scores of a request.

    Raises:
        ServiceError: `INVALID_FIELD` with all that is wrong.
    """
    violations = [*text_violations("metric", request.metric), *_score_violations(request), *_slice_violations(request)]
    if violations:
        raise invalid_fields(listed(violations))
    slices = {each.slice: tuple(each.positions) for each in request.slices}
    return Scores.of(tuple(request.row_ids), tuple(request.scores), slices)


def _score_violations(request: pb.RecordEvaluationRequest) -> Iterator[FieldViolation]:
    rows = len(request.row_ids)
    if not 1 <= rows <= MOST_ROWS:
        yield FieldViolation("row_ids", f"has {rows} entries; give 1 to {MOST_ROWS}")
        return
    if len(request.scores) != rows:
        yield FieldViolation("scores", f"has {len(request.scores)} entries for {rows} rows; give one a row")
    for number, row_id in enumerate(request.row_ids):
        if not is_digest(row_id):
            problem = f"is {row_id[:80]!r}; give 64 lower-case hexadecimal digits"
            yield FieldViolation(f"row_ids[{number}]", problem)
    if len(set(request.row_ids)) < rows:
        yield FieldViolation("row_ids", f"names {rows - len(set(request.row_ids))} rows more than once")
    for number, score in enumerate(request.scores):
        if not math.isfinite(score):
            yield FieldViolation(f"scores[{number}]", f"is {score}; give a finite number")


def _slice_violations(request: pb.RecordEvaluationRequest) -> Iterator[FieldViolation]:
    if len(request.slices) > MOST_SLICES:
        yield FieldViolation("slices", f"has {len(request.slices)} entries; at most {MOST_SLICES} are taken")
        return
    seen: set[str] = set()
    rows = len(request.row_ids)
    for number, part in enumerate(request.slices):
        place = f"slices[{number}]"
        yield from text_violations(f"{place}.slice", part.slice)
        if part.slice in seen:
            yield FieldViolation(f"{place}.slice", f"is {part.slice!r} a second time")
        seen.add(part.slice)
        positions = set(part.positions)
        if len(positions) < len(part.positions) or not all(0 <= position < rows for position in positions):
            yield FieldViolation(f"{place}.positions", f"has positions twice, or outside 0 to {rows - 1}")
