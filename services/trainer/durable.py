"""Copies a run's checkpoints to the blob store, beside the run, and brings one of them back on another node.

The run never waits for the network: it makes hard links of a checkpoint's files, which outlive the checkpoint's own
folder, and a thread sends what they hold. One copy is under way and one waits; a newer checkpoint takes the place of
the one that waits. Bytes that the registry has are not sent again, so a copy that a kill has broken off costs little.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from services.trainer.admission import CheckpointInput, StartRequest
from services.trainer.engine.training_task import Fault, TrainingFault
from services.trainer.events import EventLog
from services.trainer.inputs import Patience, insist, is_temporary
from services.trainer.node_cache import NodeCache
from services.trainer.wire import manifest_to_proto
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.manifest import IntegrityError, Manifest
from tuneforge.names import CheckpointName
from tuneforge.v1 import events_pb2

if TYPE_CHECKING:
    from tuneforge.blobs import BlobClient

Connect = Callable[[], "AbstractContextManager[BlobClient]"]
"""Opens the way to the project's blobs."""

_AGAIN_S = 1.0
_LET_GO_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    step: int
    folder: Path
    manifest: Manifest
    since: float
    """Monotonic time of the save's end."""


class DurableCheckpoints:
    """The sink of a run's reports, which sees to it that its checkpoints become durable. Threads may share it.

    Args:
        log: Where all reports go.
        checkpoints: The job's checkpoints.
        connect: Opens the way to the blob store.
        every_steps: Steps between two checkpoints that are copied; 0: none is.
        known: Checkpoints that the blob store has already.
    """

    def __init__(
        self,
        log: EventLog,
        checkpoints: Path,
        connect: Connect,
        *,
        every_steps: int,
        known: Collection[CheckpointInput] = (),
    ) -> None:
        self._log = log
        self._checkpoints = checkpoints
        self._links = checkpoints.with_name("copying")
        self._connect = connect
        self._every_steps = every_steps
        self._known = {checkpoint.manifest.digest: checkpoint.name for checkpoint in known}
        self._newest: int | None = None
        self._copied_step: int | None = None
        self._waiting: _Copy | None = None
        self._is_copying = False
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        shutil.rmtree(self._links, ignore_errors=True)  # what a killed worker has left

    def emit(self, payload: Message) -> None:
        """Takes one report, as `EventLog.emit`; a checkpoint that it tells of is copied if it is its turn."""
        if isinstance(payload, events_pb2.ResumedFrom):
            payload.checkpoint = self._known.get(payload.digest, "")
        self._log.emit(payload)
        if self._every_steps and isinstance(payload, events_pb2.CheckpointSaved | events_pb2.ResumedFrom):
            self._newest = payload.step
            if self._copied_step is None or payload.step - self._copied_step >= self._every_steps:
                self._offer(payload.step)

    def finish(self, patience: Callable[[], bool], *, at_most_s: float = math.inf) -> None:
        """Waits for the copies that are due, the newest checkpoint's among them; says so when it gives up.

        Args:
            patience: Asked again and again whether to wait on.
            at_most_s: How long it waits in all, in seconds.
        """
        end = time.monotonic() + at_most_s
        if self._every_steps and self._newest is not None and self._newest != self._copied_step:
            self._offer(self._newest)
        with self._changed:
            while (is_open := self._waiting is not None or self._is_copying) and patience() and time.monotonic() < end:
                self._changed.wait(timeout=0.1)
        if is_open:
            self._say(f"The checkpoint of step {self._newest} was not copied to the blob store: the run has ended.")

    def close(self) -> None:
        """Ends the copying; what was not sent yet is not sent. Nothing is reported after this returns."""
        with self._changed:
            self._is_closed, self._waiting = True, None
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_LET_GO_S)
        shutil.rmtree(self._links, ignore_errors=True)

    def _offer(self, step: int) -> None:
        from services.trainer.engine import checkpoints  # imports torch, which the run has done by now

        place = checkpoints.place_of(self._checkpoints, step)
        links = self._links / place.name
        try:
            manifest = checkpoints.manifest_of(place)
            if manifest.digest in self._known:
                self._copied_step = step
                return
            shutil.rmtree(links, ignore_errors=True)
            links.mkdir(parents=True)
            for file in manifest.files:
                os.link(place / file.path, links / file.path)
        except (OSError, ValueError) as error:  # removed for a newer one, or damaged: the next one is copied
            sys.stderr.write(f"the checkpoint of step {step} cannot be copied: {error}\n")
            return
        self._copied_step = step
        with self._changed:
            if self._waiting is not None:
                shutil.rmtree(self._waiting.folder, ignore_errors=True)
            self._waiting = _Copy(step=step, folder=links, manifest=manifest, since=time.monotonic())
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._copy_all, name="copying", daemon=True)
                self._thread.start()

    def _copy_all(self) -> None:
        while True:
            with self._changed:
                self._is_copying = False
                self._changed.notify_all()
                while self._waiting is None:
                    if self._is_closed:
                        return
                    self._changed.wait()
                copy, self._waiting, self._is_copying = self._waiting, None, True
            try:
                self._copy(copy)
            except Exception as error:  # noqa: BLE001 - a copy that fails must not end the run
                self._say(f"The checkpoint of step {copy.step} was not copied to the blob store: {error}.")
            shutil.rmtree(copy.folder, ignore_errors=True)

    def _copy(self, copy: _Copy) -> None:
        said = ""
        while True:
            try:
                with self._connect() as blobs:
                    blobs.upload_manifest(copy.folder, copy.manifest)
                break
            except TuneforgeError as error:
                if not is_temporary(error):
                    raise
                if error.message != said:
                    said = error.message
                    self._say(f"The copy of the checkpoint of step {copy.step} waits for the registry: {said}.")
            with self._changed:
                if self._is_closed:
                    return
                self._changed.wait(_AGAIN_S)
                if self._waiting is not None:  # a newer one: there is no use in this one any more
                    return
        self._known[copy.manifest.digest] = ""
        self._report(
            events_pb2.CheckpointDurable(
                step=copy.step, manifest=manifest_to_proto(copy.manifest), seconds=time.monotonic() - copy.since
            )
        )

    def _say(self, message: str) -> None:
        self._report(events_pb2.LogLine(severity=events_pb2.LOG_SEVERITY_WARNING, message=message))

    def _report(self, payload: Message) -> None:
        with self._changed:
            if not self._is_closed:
                self._log.emit(payload)


def bring_state(request: StartRequest, folder: Path, cache: NodeCache, connect: Connect, patience: Patience) -> None:
    """Sees to it that the newest checkpoint on record is here, none beyond it, and the best one if it may be needed.

    Args:
        request: What was asked for.
        folder: The job's checkpoints on this node.
        cache: Artifacts by digest; a broken download goes on there.
        connect: Opens the way to the blob store.
        patience: Waits while the registry is away.

    Raises:
        TrainingFault: INTEGRITY: the checkpoint of another job from which the run begins cannot be had.
        Stopped: The worker was asked to stop meanwhile.
        OSError: The disk refuses.
    """
    from services.trainer.engine import checkpoints  # imports torch

    if request.newest_known_step is not None:
        checkpoints.forget_newer(folder, request.newest_known_step)
    begin = begins_from(request)
    own = [each for each in request.checkpoints if _is_own(each, request)]
    bring_checkpoint(own if begin is None else [*own, begin], folder, cache, connect, patience)
    # One from before it, the best one that an earlier attempt has brought, is no beginning.
    if begin is not None and (checkpoints.newest_step(folder) or 0) < begin.step:
        raise TrainingFault(
            Reason.INTEGRITY,
            f"{begin.name}, from which the run begins, cannot be had.",
            "Begin from another one of those that `tuneforge checkpoints list` has.",
            Fault.INFRASTRUCTURE,
            metadata={"checkpoint": begin.name},
        )
    if request.spec.evaluation.use_best:
        bring_best(request.checkpoints, folder, cache, connect, patience)


def begins_from(request: StartRequest) -> CheckpointInput | None:
    """Returns the checkpoint of another job that the run begins from; None when it begins at the beginning.

    It is the first of another job; a second one, of that job or of an earlier one, is only the best before it.
    """
    return next((each for each in request.checkpoints if not _is_own(each, request)), None)


def _is_own(checkpoint: CheckpointInput, request: StartRequest) -> bool:
    return CheckpointName.parse(checkpoint.name).parent == request.name.parent


def bring_checkpoint(
    candidates: Sequence[CheckpointInput],
    folder: Path,
    cache: NodeCache,
    connect: Connect,
    patience: Patience,
) -> CheckpointInput | None:
    """Fetches the first checkpoint that can be had and verifies, unless the node has one that is as new.

    Args:
        candidates: What is in the blob store, the best first.
        folder: The job's checkpoints on this node.
        cache: Artifacts by digest; a broken download goes on there.
        connect: Opens the way to the blob store.
        patience: Waits while the registry is away.

    Returns:
        The one that was fetched; None: the node has one as new, or none can be had.

    Raises:
        Stopped: The worker was asked to stop meanwhile.
        OSError: The disk refuses.
    """
    from services.trainer.engine import checkpoints  # imports torch

    if not candidates:
        return None
    newest = checkpoints.newest_step(folder)
    for candidate in candidates:
        if newest is not None and newest >= candidate.step:
            return None
        if _fetch(candidate, folder, cache, connect, patience):
            return candidate
    return None


def bring_best(
    candidates: Sequence[CheckpointInput],
    folder: Path,
    cache: NodeCache,
    connect: Connect,
    patience: Patience,
) -> None:
    """Fetches the checkpoint with the lowest validation loss so far, if it can be had: its weights may be the result.

    Arguments and errors as for `bring_checkpoint`, after which it is called.
    """
    from services.trainer.engine import checkpoints

    step = checkpoints.newest_facts(folder).get("progress", {}).get("best_step", 0)
    for candidate in candidates:
        if candidate.step == step and not checkpoints.is_there(folder, step):
            _fetch(candidate, folder, cache, connect, patience)


def _fetch(candidate: CheckpointInput, folder: Path, cache: NodeCache, connect: Connect, patience: Patience) -> bool:
    """Puts a checkpoint into the job's folder; says why when it cannot be had."""
    from services.trainer.engine import checkpoints

    try:
        with connect() as blobs:
            here = insist(lambda: cache.fetch(candidate.manifest, blobs), "the blob store", patience)
        checkpoints.adopt(folder, candidate.step, here, candidate.manifest)
    except (TuneforgeError, IntegrityError) as error:
        patience.say_waiting(f"{candidate.name} cannot be had and is passed over: {error}")
        return False
    finally:
        _let_go(candidate.manifest, cache)  # the checkpoint's own folder has the files now
    return True


def _let_go(manifest: Manifest, cache: NodeCache) -> None:
    cache.discard(manifest)
    cache.release(manifest)
