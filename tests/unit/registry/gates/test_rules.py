"""What gates say of a version, and scores as bytes."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.gates.examination import fits, gate_failed
from services.registry.gates.resources import (
    ApprovalGate,
    CheckGate,
    Comparator,
    ComparisonEvidence,
    ComparisonGate,
    Gate,
    GatePolicy,
    GateResult,
    MetricGate,
    Rule,
    SliceEvidence,
    SliceGuard,
)
from services.registry.gates.rules import Candidate, Check, Evaluated, Facts, comparisons, judge
from services.registry.gates.scores import Scores, differences
from tuneforge.errors import Reason
from tuneforge.names import AliasName, PolicyName

ALIAS = AliasName("p", "m", "production")
DATA = "projects/p/datasets/d/versions/1"
COMPARISON = ComparisonGate(metric="accuracy", dataset=DATA, dataset_digest="e" * 64, min_effect=0.01)
EVALUATED = Evaluated(digest="a" * 64, rows_digest="b" * 64, rows=100, mean=0.8)


def policy(rule: Rule, *, skips: bool = False) -> GatePolicy:
    """Returns a policy of one gate."""
    gates = (Gate(id="gate", rule=rule),)
    return GatePolicy(
        name=PolicyName("p", "m", "quality"),
        alias_pattern="production",
        gates=gates,
        rollback_skips_gates=skips,
        revision=1,
    )


def candidate(metrics: Mapping[str, float] = MappingProxyType({}), *, is_rollback: bool = False) -> Candidate:
    """Returns version 4 with figures."""
    return Candidate(alias=ALIAS, version=4, metrics=metrics, mover="ada", is_rollback=is_rollback)


def result(
    rule: Rule, facts: Facts | None = None, evidence: ComparisonEvidence | None = None, **metrics: float
) -> GateResult:
    """Returns what one gate says of version 4."""
    known = facts or Facts(policies=(policy(rule),), champion=0, sequence=0)
    found = {rule: evidence} if isinstance(rule, ComparisonGate) and evidence else {}
    [only] = judge(known, candidate(metrics), found, 1).results
    return only


@pytest.mark.parametrize(
    ("comparator", "value", "is_passed"),
    [
        (Comparator.AT_LEAST, 0.8, True),
        (Comparator.AT_LEAST, 0.7999, False),
        (Comparator.MORE_THAN, 0.8, False),
        (Comparator.MORE_THAN, 0.81, True),
        (Comparator.AT_MOST, 0.8, True),
        (Comparator.AT_MOST, 0.81, False),
        (Comparator.LESS_THAN, 0.8, False),
        (Comparator.LESS_THAN, 0.79, True),
        (Comparator.AT_MOST, math.nan, False),
        (Comparator.LESS_THAN, math.nan, False),
        (Comparator.MORE_THAN, math.inf, True),
    ],
)
def test_thresholds_hold_at_their_edge(comparator: Comparator, value: float, is_passed: bool) -> None:
    """Each comparator at the threshold and beside it; what is not a number never passes."""
    rule = MetricGate(metric="accuracy", comparator=comparator, threshold=0.8)
    said = result(rule, accuracy=value)
    assert said.is_passed is is_passed
    assert said.observed == value or math.isnan(value)
    assert ("passed by" if is_passed else "missed by") in said.sentence


def test_a_gate_says_by_how_much() -> None:
    """The margin is positive where a gate is passed and negative where it is missed; what is missing has none."""
    rule = MetricGate(metric="loss", comparator=Comparator.AT_MOST, threshold=0.5)
    assert result(rule, loss=0.75).margin == -0.25
    assert result(rule, loss=0.25).margin == 0.25
    missing = result(rule, accuracy=1.0)
    assert (missing.is_passed, missing.observed, missing.margin) == (False, None, None)
    assert "not recorded" in missing.sentence


def test_a_threshold_on_a_data_set_takes_the_mean_of_its_scores() -> None:
    """Only scores on the content that the policy froze count."""
    rule = MetricGate(
        metric="accuracy", comparator=Comparator.AT_LEAST, threshold=0.7, dataset=DATA, dataset_digest="e" * 64
    )
    facts = Facts(
        policies=(policy(rule),), champion=0, sequence=0, evaluations={(4, "e" * 64, "accuracy", ()): EVALUATED}
    )
    assert result(rule, facts, accuracy=0.1).observed == 0.8
    other = Facts(
        policies=(policy(rule),), champion=0, sequence=0, evaluations={(4, "f" * 64, "accuracy", ()): EVALUATED}
    )
    assert not result(rule, other, accuracy=0.9).is_passed


def test_checks_have_to_have_passed() -> None:
    """A check that no report has, or that did not pass, refuses with its own words."""
    rule = CheckGate(check="safety")
    for checks, is_passed, words in (
        ({}, False, "no validation report has"),
        ({("safety", ()): Check(is_passed=False, message="3 rows leak")}, False, "3 rows leak"),
        ({("safety", ()): Check(is_passed=True, message="")}, True, "passed"),
    ):
        facts = Facts(policies=(policy(rule),), champion=0, sequence=0, checks=checks)  # type: ignore[arg-type]
        said = result(rule, facts)
        assert (said.is_passed, words in said.sentence) == (is_passed, True)


def test_the_mover_does_not_approve() -> None:
    """Who moves the alias is not counted; the margin is the number of people that are missing."""
    rule = ApprovalGate(approvals=2)
    facts = Facts(policies=(policy(rule),), champion=0, sequence=0, approvers=frozenset({"ada", "bob"}))
    said = result(rule, facts)
    assert (said.is_passed, said.observed, said.margin) == (False, 1.0, -1.0)
    assert "bob" in said.sentence
    enough = Facts(policies=(policy(rule),), champion=0, sequence=0, approvers=frozenset({"bob", "eve"}))
    assert result(rule, enough).is_passed


def compared(**changes: object) -> Facts:
    """Returns facts under which version 4 is compared with version 3, unless changed."""
    evaluations = {(number, "e" * 64, "accuracy", ()): EVALUATED for number in (3, 4)}
    values: dict[str, object] = {
        "policies": (policy(COMPARISON),),
        "champion": 3,
        "sequence": 1,
        "evaluations": evaluations,
    }
    return Facts(**{**values, **changes})  # type: ignore[arg-type]


def test_a_comparison_needs_both_on_the_same_rows() -> None:
    """Scores that are missing, of other rows or of too few, refuse and say so; without a champion it passes."""
    other = Evaluated(digest="c" * 64, rows_digest="d" * 64, rows=100, mean=0.8)
    few = Evaluated(digest="c" * 64, rows_digest="b" * 64, rows=29, mean=0.8)
    key3, key4 = (3, "e" * 64, "accuracy", ()), (4, "e" * 64, "accuracy", ())
    for evaluations, words in (
        ({key4: EVALUATED}, "not recorded for version 3"),
        ({}, "not recorded for version 4 and 3"),
        ({key3: EVALUATED, key4: other}, "other rows"),
        ({key3: few, key4: few}, "29 rows"),
    ):
        facts = compared(evaluations=evaluations)
        assert not list(comparisons(facts, candidate()))
        said = result(COMPARISON, facts)
        assert (said.is_passed, words in said.sentence) == (False, True), said.sentence
    for champion in (0, 4):
        assert result(COMPARISON, compared(champion=champion)).is_passed
    assert list(comparisons(compared(), candidate())) == [COMPARISON]
    assert not result(COMPARISON, compared()).is_passed, "what was not computed does not pass"


def test_a_comparison_passes_by_its_bound_and_every_slice() -> None:
    """The bound has to reach the minimum effect, and no slice may lose more than its tolerance."""
    good = ComparisonEvidence(rows=100, effect=0.05, lower_bound=0.03)
    said = result(COMPARISON, compared(), good)
    assert said.is_passed
    assert said.margin == pytest.approx(0.02)
    weak = ComparisonEvidence(rows=100, effect=0.05, lower_bound=0.005)
    assert result(COMPARISON, compared(), weak).margin == pytest.approx(-0.005)
    zero = ComparisonGate(metric="accuracy", dataset=DATA, dataset_digest="e" * 64)
    none = ComparisonEvidence(rows=100, effect=0.0, lower_bound=0.0)
    assert not result(zero, compared(policies=(policy(zero),)), none).is_passed, "equal is not better"
    guarded = ComparisonGate(
        metric="accuracy", dataset=DATA, dataset_digest="e" * 64, slices=(SliceGuard(slice="short", tolerance=0.02),)
    )
    for bound, is_passed in ((-0.02, True), (-0.021, False), (-math.inf, False)):
        part = SliceEvidence(slice="short", rows=20, effect=0.0, lower_bound=bound, tolerance=0.02)
        found = ComparisonEvidence(rows=100, effect=0.05, lower_bound=0.03, slices=(part,))
        said = result(guarded, compared(policies=(policy(guarded),)), found)
        assert said.is_passed is is_passed
        assert ("'short'" in said.sentence) is not is_passed


def test_policies_may_let_rollbacks_through() -> None:
    """Only a rollback, and only past policies that say so; the report names them."""
    rule = MetricGate(metric="accuracy", comparator=Comparator.AT_LEAST, threshold=0.8)
    facts = Facts(policies=(policy(rule, skips=True),), champion=0, sequence=0)
    assert not judge(facts, candidate(), {}, 1).is_passed
    report = judge(facts, candidate(is_rollback=True), {}, 1)
    assert (report.is_passed, report.results, len(report.skipped)) == (True, (), 1)
    strict = Facts(policies=(policy(rule),), champion=0, sequence=0)
    assert not judge(strict, candidate(is_rollback=True), {}, 1).is_passed


def test_a_refusal_names_every_gate_that_is_missed() -> None:
    """The first one in the message with its figures, all of them as entries."""
    rules: tuple[Rule, ...] = (
        MetricGate(metric="accuracy", comparator=Comparator.AT_LEAST, threshold=0.8),
        CheckGate(check="safety"),
        MetricGate(metric="loss", comparator=Comparator.AT_MOST, threshold=9.0),
    )
    gates = tuple(Gate(id=f"g{number}", rule=rule) for number, rule in enumerate(rules))
    whole = GatePolicy(name=PolicyName("p", "m", "quality"), alias_pattern="*", gates=gates, revision=1)
    report = judge(Facts(policies=(whole,), champion=0, sequence=0), candidate({"accuracy": 0.7, "loss": 1.0}), {}, 1)
    error = gate_failed(report)
    assert error.reason is Reason.GATE_FAILED
    assert [violation.field for violation in error.fields] == ["quality/g0", "quality/g1"]
    assert (error.metadata["gate"], error.metadata["margin"]) == ("g0", "-0.1")
    assert error.metadata["failed"] == "quality/g0,quality/g1"


@pytest.mark.parametrize(
    ("pattern", "alias", "expected"),
    [
        ("production", "production", True),
        ("production", "production-eu", False),
        ("prod*", "production", True),
        ("*-eu", "production-eu", True),
        ("p*n", "production", True),
        ("p*n", "production-eu", False),
        ("*", "x", True),
    ],
)
def test_patterns_fit_whole_ids(pattern: str, alias: str, expected: bool) -> None:
    """`*` stands for any characters, and everything else for itself."""
    assert fits(pattern, alias) is expected


ROWS = st.dictionaries(st.integers(0, 10**6), st.floats(-1e6, 1e6), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_scores_are_the_same_in_any_order_and_as_bytes(rows: dict[int, float], order: object) -> None:
    """Whatever the order of the rows, the same content has the same bytes, and is read back as it was."""
    ids = [f"{number:064x}" for number in rows]
    one = Scores.of(tuple(ids), tuple(rows.values()), {"first": (0,)})
    places = list(range(len(ids)))
    order.shuffle(places)  # type: ignore[attr-defined]
    values = list(rows.values())
    mixed = Scores.of(
        tuple(ids[place] for place in places), tuple(values[place] for place in places), {"first": (places.index(0),)}
    )
    assert mixed.to_bytes() == one.to_bytes()
    assert Scores.from_bytes(one.to_bytes()) == one
    assert one.rows_digest == Scores.of(one.row_ids, (0.5,) * len(ids), one.slices).rows_digest
    assert one.mean == pytest.approx(sum(rows.values()) / len(rows))


def test_differences_are_gains() -> None:
    """A lower score is a gain where lower is better."""
    new, old = (Scores.of(("a" * 64, "b" * 64), values, {}) for values in ((1.0, 2.0), (3.0, 1.0)))
    assert differences(new, old, lower_is_better=False) == [-2.0, 1.0]
    assert differences(new, old, lower_is_better=True) == [2.0, -1.0]
