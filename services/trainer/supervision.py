"""Follows one attempt from its acceptance, or its adoption, to its end.

The worker's identity file decides who owns the attempt's spool: it is created once, by a worker or, for an attempt that
ends before it has one, by the agent. When a worker is dead the agent is its heir and may write the last event, except
for a lost attempt, which has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from services.grpckit.logging import get_logger
from services.trainer import adoption, confinement
from services.trainer.adoption import NOBODY, ProcessIdentity
from services.trainer.attempts import Attempt
from services.trainer.autopsy import cause_of_loss
from services.trainer.ends import AttemptFailure, AttemptState, End, Outcome, failure, outcome_message
from services.trainer.events import EventLog
from services.trainer.folders import create_json
from services.trainer.launching import LaunchFailed, WorkerLauncher
from services.trainer.orders import StopMode
from services.trainer.stalls import StallWatch
from tuneforge.errors import Reason

POLL_WATCHED_S = 0.03
"""How often the spool of a watched attempt is looked at; a look costs two system calls."""
POLL_S = 0.5
"""The same when nobody watches; heartbeats carry the step."""
LINGER_S = 10.0
"""How long a worker may take to end after it has written its outcome."""
_CLAIM_POLL_S = 0.005

_log = get_logger(__name__)


async def supervise(attempt: Attempt, launcher: WorkerLauncher) -> None:
    """Sees to it that the attempt has a worker, follows its events, enforces its stop, and writes down its end.

    Args:
        attempt: One that has not ended.
        launcher: Gives it a worker when it has none yet.
    """
    name, node_rank = attempt.id
    worker = await _worker_of(attempt, launcher)
    if worker is None:
        return
    _log.info("attempt has a worker", attempt=name, node_rank=node_rank, pid=worker.pid)
    if worker == NOBODY:  # an earlier start of this node was ending it
        await _end_without_worker(attempt, None)
        return
    await _follow(attempt, worker)
    exit_code = _reap(worker)
    await _settle(attempt, await launcher.exit_code(worker.pid) if exit_code is None else exit_code)


async def _worker_of(attempt: Attempt, launcher: WorkerLauncher) -> ProcessIdentity | None:
    """Returns the attempt's worker, started when there is none; `None` when the attempt has ended without one."""
    if attempt.worker is not None:
        return attempt.worker
    launching = asyncio.create_task(launcher.launch(attempt.folder.path))
    launching.add_done_callback(lambda _: attempt.call_attention())
    try:
        while not launching.done():
            if attempt.stop_order is not None and _claim(attempt):
                await _end_without_worker(attempt, None)
                return None
            await attempt.wait_for_attention(POLL_S)
        try:
            pid = await launching
        except LaunchFailed as error:
            if _claim(attempt):
                await _end_without_worker(attempt, failure(Reason.WORKER_LOST, f"{error}"))
                return None
            return attempt.worker
        return await _claimed_by(attempt, pid)
    finally:
        launching.cancel()
        with contextlib.suppress(asyncio.CancelledError, LaunchFailed):
            await launching


async def _claimed_by(attempt: Attempt, pid: int) -> ProcessIdentity:
    """Returns the worker that has claimed the attempt: the process just forked, or an earlier one."""
    while attempt.worker is None:
        if adoption.identify(pid) is None and attempt.worker is None:
            return ProcessIdentity(pid=pid, start_ticks=0, boot_id="")  # it died before it could say who it is
        await asyncio.sleep(_CLAIM_POLL_S)
    return attempt.worker


async def _follow(attempt: Attempt, worker: ProcessIdentity) -> None:
    """Returns when the worker's process has ended."""
    outcome_seen_at = None
    stalls = StallWatch(attempt.folder, worker, attempt.assignment.stall_after_s, attempt.assignment.stall_ends_after_s)
    with adoption.ProcessEnd(worker, attempt.call_attention) as process:
        while not process.has_ended:
            await attempt.catch_up()
            now = time.time()
            if attempt.outcome is not None:
                outcome_seen_at = outcome_seen_at or now
            _note_stall(attempt, stalls)
            order = attempt.stop_order
            is_late = order is not None and now >= order.kill_at
            if is_late or (outcome_seen_at is not None and now >= outcome_seen_at + LINGER_S):
                adoption.kill_session(worker)
            wait_s = POLL_WATCHED_S if attempt.watchers else POLL_S
            if order is not None:
                wait_s = min(wait_s, max(0.01, order.kill_at - now))
            await attempt.wait_for_attention(wait_s)


def _note_stall(attempt: Attempt, stalls: StallWatch) -> None:
    """Notes whether the worker makes progress; a change is told to whoever watches."""
    before, attempt.stall = attempt.stall, stalls.look(last_step=attempt.view().step)
    attempt.is_ended_for_stall = stalls.has_ended_it
    if before != attempt.stall:
        attempt.tell()


async def _settle(attempt: Attempt, exit_code: int | None) -> None:
    """Reads the last events and writes down the end.

    Args:
        attempt: Its worker is dead.
        exit_code: How that ended, -9: killed by signal 9; `None`: not seen, it was no child of ours.
    """
    confinement.release(attempt.folder.group)
    await attempt.catch_up()
    order = attempt.stop_order
    if attempt.outcome is None and order is not None and order.mode is StopMode.CANCEL:
        # It was cancelled and is gone, which is all that was asked for.
        await _write_outcome(attempt, Outcome(AttemptState.CANCELLED, None))
    loss = None if attempt.outcome is not None else cause_of_loss(attempt, exit_code)
    if loss is not None and loss.is_user:
        # It would come to the same end again: a failure, not a loss.
        await _write_outcome(attempt, Outcome(AttemptState.FAILED, loss))
    if attempt.outcome is not None:
        end = End(state=attempt.outcome.state, time=time.time(), failure=attempt.outcome.failure)
    else:
        end = End(state=AttemptState.LOST, time=time.time(), failure=loss)
    attempt.finish(end)
    name, node_rank = attempt.id
    _log.info("attempt has ended", attempt=name, node_rank=node_rank, state=end.state.value)


async def _end_without_worker(attempt: Attempt, fault: AttemptFailure | None) -> None:
    """Ends an attempt that this process has claimed before it had a worker."""
    if fault is not None:
        outcome = Outcome(AttemptState.FAILED, fault)
    else:
        order = attempt.stop_order
        is_cancel = order is not None and order.mode is StopMode.CANCEL
        outcome = Outcome(AttemptState.CANCELLED if is_cancel else AttemptState.INTERRUPTED, None)
    await attempt.catch_up()
    if attempt.outcome is None:
        await _write_outcome(attempt, outcome)
    await _settle(attempt, None)


async def _write_outcome(attempt: Attempt, outcome: Outcome) -> None:
    assignment, step = attempt.assignment, attempt.view().step

    def write() -> None:
        log = EventLog(attempt.folder.spool, assignment.name, assignment.node_rank)
        log.emit(outcome_message(outcome, step=step))
        log.close()

    await asyncio.to_thread(write)
    await attempt.catch_up()


def _claim(attempt: Attempt) -> bool:
    """Takes an attempt that has no worker yet, so that none can begin; false when a worker was faster."""
    return create_json(attempt.folder.worker, NOBODY.to_json())


def _reap(worker: ProcessIdentity) -> int | None:
    """Collects a worker that became our child when its fork server died; returns its exit code."""
    try:
        pid, status = os.waitpid(worker.pid, os.WNOHANG) if worker.pid > 0 else (0, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if pid else None
