"""Messages of the contract <-> dataclasses of the scheduler; only servicer and peers know both too."""

from services.scheduler.wire.budgets import budget_bytes, budget_from_bytes, predicted_watts
from services.scheduler.wire.estimates import measured_run
from services.scheduler.wire.events import (
    Batch,
    Change,
    Facts,
    batch_bytes,
    has_stacks,
    stall_event,
    stall_of_part,
    state_event,
    warning_event,
)
from services.scheduler.wire.failures import failure_bytes, failure_from_bytes, failure_from_proto
from services.scheduler.wire.options import retry_policy_of
from services.scheduler.wire.publications import publish_request
from services.scheduler.wire.resources import capacity_from_bytes, end_of_part
from services.scheduler.wire.scheduling import predicted_ms, scheduling_values
from services.scheduler.wire.specs import rows_at_once, spec_digest

__all__ = [
    "Batch",
    "Change",
    "Facts",
    "batch_bytes",
    "budget_bytes",
    "budget_from_bytes",
    "capacity_from_bytes",
    "end_of_part",
    "failure_bytes",
    "failure_from_bytes",
    "failure_from_proto",
    "has_stacks",
    "measured_run",
    "predicted_ms",
    "predicted_watts",
    "publish_request",
    "retry_policy_of",
    "rows_at_once",
    "scheduling_values",
    "spec_digest",
    "stall_event",
    "stall_of_part",
    "state_event",
    "warning_event",
]
