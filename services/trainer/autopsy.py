"""Says why a worker is gone that did not say it itself: from its end, its last samples and the kernel's counters."""

from __future__ import annotations

from services.trainer import cgroups, devices
from services.trainer.attempts import Attempt
from services.trainer.ends import AttemptFailure, failure
from services.trainer.wire import read_start
from tuneforge.errors import Reason
from tuneforge.specs.cheaper import cheaper
from tuneforge.v1 import trainer_pb2

NEAR_LIMIT = 0.5
"""Share of the memory limit from which on a worker was the one that the kernel meant: it takes the largest process, and
memory grows fast between two samples."""


def cause_of_loss(attempt: Attempt, exit_code: int | None) -> AttemptFailure:
    """Returns why a worker is gone; a user fault where the same would happen again.

    Args:
        attempt: Its worker is dead and has written no outcome.
        exit_code: How that ended, -9: killed by signal 9; `None`: not seen.
    """
    order = attempt.stop_order
    metadata = {"step": str(attempt.view().step)}
    if exit_code is not None:
        metadata["exit_code"] = str(exit_code)
    if attempt.is_ended_for_stall:
        limit_s = attempt.assignment.stall_ends_after_s
        message = f"the worker process made no progress for {limit_s:g} s and was ended"
        return failure(Reason.STALLED, message, metadata=metadata)
    if order is not None:
        how = "did not stop in the time it was given, and was ended"
    elif exit_code is None:
        how = "is gone; how it ended was not seen"
    elif exit_code < 0:
        how = f"was ended by signal {-exit_code}"
    else:
        how = f"ended with exit code {exit_code} and no outcome"
    kills, before = cgroups.count_oom_kills(), attempt.assignment.oom_kills
    if kills is not None and before is not None and kills > before and exit_code in (None, -9) and order is None:
        limit, peak = devices.memory_bytes(), attempt.memory_peak_bytes
        if peak >= NEAR_LIMIT * limit:
            return _out_of_memory(attempt, peak, limit, metadata)
        # Another process of the cgroup may have been meant, so it stays a hint.
        how += "; the kernel has ended a process of this node for lack of memory meanwhile"
    return failure(Reason.WORKER_LOST, f"the worker process {how}", metadata=metadata)


def _out_of_memory(attempt: Attempt, peak: int, limit: int, metadata: dict[str, str]) -> AttemptFailure:
    request = trainer_pb2.StartAttemptRequest.FromString(attempt.folder.request.read_bytes())
    change = next((change.words for change in cheaper(read_start(request).spec)), "a larger node")
    return failure(
        Reason.OUT_OF_MEMORY,
        f"the kernel ended the worker process for lack of memory: it had {peak / 1e9:.2f} GB at its last sample, and "
        f"the node has {limit / 1e9:.2f} GB; first try {change}",
        is_user=True,
        metadata={**metadata, "peak_bytes": str(peak), "limit_bytes": str(limit), "change": change},
    )
