"""Policies, gates and their results as plain values; times are microseconds since 1970 in UTC."""

from dataclasses import dataclass, field
from enum import StrEnum

from tuneforge.names import AliasName, PolicyName

MOST_GATES = 50
"""Gates in one policy."""
LONGEST_TEXT = 100
"""Characters of the names of metrics, checks and slices."""
DEFAULT_CONFIDENCE = 0.95
DEFAULT_RESAMPLES = 2000
DEFAULT_MIN_ROWS = 30


class Comparator(StrEnum):
    """How a figure is held against a threshold; the values are those of the contract without their prefix."""

    AT_LEAST = "AT_LEAST"
    MORE_THAN = "MORE_THAN"
    AT_MOST = "AT_MOST"
    LESS_THAN = "LESS_THAN"

    @property
    def words(self) -> str:
        """As a person says it."""
        return self.value.lower().replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricGate:
    """A threshold."""

    metric: str
    comparator: Comparator
    threshold: float
    dataset: str = ""
    """Name of the data set version whose scores are averaged; empty: a metric of the version itself."""
    dataset_digest: str = ""
    by: tuple[str, ...] = ()
    """Whose scores count: principals, and roles as `role:evaluator`; empty: `reporters.TRUSTED`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGate:
    """A check of the validation reports that has to have passed."""

    check: str
    by: tuple[str, ...] = ()
    """Whose reports count, as in `MetricGate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceGuard:
    """A part of the rows on which the version must not be worse."""

    slice: str
    tolerance: float
    """Loss in units of the metric that is put up with, 0 or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonGate:
    """A paired comparison with the version that the alias names."""

    metric: str
    dataset: str
    dataset_digest: str = ""
    lower_is_better: bool = False
    min_effect: float = 0.0
    confidence: float = DEFAULT_CONFIDENCE
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0
    min_rows: int = DEFAULT_MIN_ROWS
    slices: tuple[SliceGuard, ...] = ()
    by: tuple[str, ...] = ()
    """Whose scores count, as in `MetricGate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGate:
    """People who have to agree."""

    approvals: int


Rule = MetricGate | CheckGate | ComparisonGate | ApprovalGate


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition."""

    id: str
    rule: Rule

    @property
    def kind(self) -> str:
        """As the contract names it, without prefix."""
        return type(self.rule).__name__.removesuffix("Gate").upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """The gates of one alias, or of all whose id fits a pattern."""

    name: PolicyName
    alias_pattern: str
    gates: tuple[Gate, ...]
    rollback_skips_gates: bool = False
    revision: int = 0
    actor: str = ""
    time_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """What a comparison found on one guarded slice."""

    slice: str
    rows: int
    effect: float
    lower_bound: float
    tolerance: float

    @property
    def is_passed(self) -> bool:
        """Whether a loss larger than the tolerance is ruled out."""
        return self.rows > 0 and self.lower_bound >= -self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonEvidence:
    """What a comparison found."""

    rows: int
    effect: float
    """Mean difference, positive where the version is better."""
    lower_bound: float
    slices: tuple[SliceEvidence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says of one version."""

    policy: PolicyName
    revision: int
    gate: Gate
    is_passed: bool
    observed: float | None = None
    required: float | None = None
    margin: float | None = None
    """By how much it is passed, or missed when negative."""
    sentence: str
    evidence: ComparisonEvidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What all gates of an alias say of a version."""

    alias: AliasName
    version: int
    champion: int
    """0: the alias names nothing."""
    results: tuple[GateResult, ...]
    skipped: tuple[PolicyName, ...] = field(default=())
    time_us: int

    @property
    def is_passed(self) -> bool:
        """Whether every gate is passed."""
        return all(result.is_passed for result in self.results)
