"""When a run's state is saved and what is said of it: begun at a step's end, reported once it is on disk."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from services.trainer.engine import reports
from services.trainer.engine.checkpoint_writer import EndedSave
from services.trainer.engine.run import Progress
from services.trainer.engine.training_task import EventSink, TrainingFault


class StateSaver(Protocol):
    """The part of the engine that this module needs."""

    def save_state(self, step: int, facts: Mapping[str, Any], *, keep_steps: set[int]) -> None:
        """Begins to save the state."""

    def ended_saves(self, *, wait: bool = False) -> list[EndedSave]:
        """Returns the saves that are over."""


@dataclass(slots=True, kw_only=True)
class Saves:
    """The checkpoints of one run."""

    engine: StateSaver
    """Saves."""
    sink: EventSink
    """Is told."""
    facts: Mapping[str, Any]
    """What is saved beside the progress."""
    keeps_best: bool
    """Whether the checkpoint with the lowest validation loss stays however old it is."""
    step: int
    """Step of the newest state that is saved, or being saved."""
    _required: int = 0
    """Step whose save must not fail; 0: none is open."""
    _waited: float = 0.0
    """How long the newest save waited for the one before, in seconds."""

    def begin(self, progress: Progress, *, is_required: bool = False) -> None:
        """Begins to save the state after the last step, unless that has begun before.

        Args:
            progress: How far the run is.
            is_required: Whether the run ends when this save fails; else it goes on with a warning.
        """
        if self.step != progress.step:
            self._begin(progress)
        if is_required:
            self._required = progress.step

    def _begin(self, progress: Progress) -> None:
        # The one before is told of while it is there: this one may be what removes it.
        started = time.monotonic()
        self.report(wait=True)
        self._waited = time.monotonic() - started
        kept = {progress.best_step} if self.keeps_best else set()
        self.engine.save_state(progress.step, {**self.facts, "progress": asdict(progress)}, keep_steps=kept)
        self.step = progress.step

    def report(self, *, wait: bool = False) -> None:
        """Tells of the saves that are over; with `wait`, of the one that is being written too.

        Raises:
            TrainingFault: A required one failed, e.g. DISK_FULL.
        """
        for ended in self.engine.ended_saves(wait=wait):
            if isinstance(ended.result, Exception):
                self._failed(ended, ended.result)
            else:
                told = replace(ended, blocked_seconds=ended.blocked_seconds + self._waited)
                self.sink.emit(reports.checkpoint_saved(told, ended.result.manifest))
            if ended.step == self._required:
                self._required = 0

    def save_now(self, progress: Progress) -> None:
        """Saves the state after the last step and returns once it is on disk.

        Raises:
            TrainingFault: DISK_FULL.
        """
        self.report(wait=True)
        if progress.step:
            self.begin(progress, is_required=True)
        self.report(wait=True)

    def _failed(self, ended: EndedSave, error: Exception) -> None:
        if self.step == ended.step:
            self.step = 0
        if ended.step == self._required or not isinstance(error, TrainingFault):
            raise error
        # A full disk costs this checkpoint and not the run.
        reports.warn(self.sink, f"{error.message} {error.cure} The run goes on.")


def tell_last(ended: Iterable[EndedSave], sink: EventSink) -> None:
    """Tells of the saves that were under way when a guard, or anything else, has ended the run."""
    for save in ended:
        if isinstance(save.result, Exception):
            reports.warn(sink, f"The state after step {save.step} was not saved: {save.result}")
        else:
            sink.emit(reports.checkpoint_saved(save, save.result.manifest))
