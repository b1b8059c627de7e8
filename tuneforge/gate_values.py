"""Gates and what they say, as plain values; `tuneforge.gates` reads and writes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from tuneforge.values import Word


class Comparator(StrEnum):
    """How a figure is held against a threshold."""

    AT_LEAST = "AT_LEAST"
    MORE_THAN = "MORE_THAN"
    AT_MOST = "AT_MOST"
    LESS_THAN = "LESS_THAN"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricGate:
    """A figure of the version against a threshold."""

    id: str
    metric: str
    comparator: Comparator
    threshold: float
    dataset: str | None = None
    """Data set version on which the figure is the mean of recorded scores; None: one of the version's own metrics."""
    by: tuple[str, ...] = ()
    """With a data set, whose scores count: principals, and roles as `role:evaluator`; empty: evaluators, admins and the
    services that run jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGate:
    """A check that has to have passed in the newest validation report that has it."""

    id: str
    check: str
    by: tuple[str, ...] = ()
    """Whose reports count, as in `MetricGate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonGate:
    """A paired comparison with the version that the alias names, on the same rows."""

    id: str
    metric: str
    dataset: str
    """The data set version on which both have scores."""
    lower_is_better: bool = False
    min_effect: float = 0.0
    """Smallest gain that has to be shown, in units of the metric, >= 0."""
    confidence: float = 0.95
    """Of the one-sided bound, 0.5 to 0.9999."""
    resamples: int = 2000
    """200 to 20000."""
    seed: int = 0
    min_rows: int = 30
    """10 or more."""
    slices: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Parts of the rows on which it must not be worse -> the loss that is put up with, >= 0."""
    by: tuple[str, ...] = ()
    """Whose scores count, as in `MetricGate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGate:
    """People who have to agree; who moves the alias does not count."""

    id: str
    approvals: int


Gate = MetricGate | CheckGate | ComparisonGate | ApprovalGate


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """What has to hold before an alias may be moved."""

    alias: str
    """Id of an alias, in which `*` stands for any characters."""
    gates: tuple[Gate, ...] = ()
    rollback_skips_gates: bool = False
    """Whether rollbacks are let through; the log tells of it."""
    name: str = ""
    """`projects/{project}/models/{model}/policies/{policy}`; empty for one that was not set yet."""
    etag: str = ""
    """Changes with each revision."""
    revision: int = 0
    actor: str = ""
    """Who made this revision."""
    update_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicyChange:
    """One revision of a policy, as the log has it."""

    policy: GatePolicy
    is_deletion: bool
    reason: str


class GateKind(Word):
    """Kind of a gate."""

    METRIC = "METRIC"
    CHECK = "CHECK"
    COMPARISON = "COMPARISON"
    APPROVAL = "APPROVAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """What a comparison found on one guarded slice."""

    slice: str
    rows: int
    effect: float
    lower_bound: float
    tolerance: float
    is_passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonEvidence:
    """The figures behind a comparison; with seed and resamples anyone can compute them again."""

    champion: str
    dataset_digest: str
    rows: int
    effect: float
    """Mean difference, positive where the version is better."""
    lower_bound: float
    confidence: float
    resamples: int
    seed: int
    slices: tuple[SliceEvidence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says of one version."""

    policy: str
    revision: int
    gate: str
    kind: GateKind
    is_passed: bool
    observed: float | None
    required: float | None
    margin: float | None
    """By how much it is passed, or missed when negative."""
    sentence: str
    comparison: ComparisonEvidence | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """What all gates of an alias say of a version."""

    alias: str
    version: str
    champion: str | None
    """The version that it is compared with."""
    is_passed: bool
    results: tuple[GateResult, ...]
    skipped_policies: tuple[str, ...]
    """Policies that let the rollback through unasked."""
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """That somebody agrees, or does not agree any more, with a version behind an alias."""

    alias: str
    version: str
    actor: str
    is_revoked: bool
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvaluation:
    """Scores of one version on one data set version by one reporter, without the scores themselves."""

    version: str
    dataset: str
    dataset_digest: str
    metric: str
    rows: int
    mean: float
    slices: tuple[str, ...]
    digest: str
    create_time: datetime
    creator: str
    """Who recorded it."""
    roles: tuple[str, ...]
    """Roles with which it was recorded; gates go by them."""
