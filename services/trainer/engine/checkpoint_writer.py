"""Writes checkpoints beside the training: the run stands still for a copy of its state, never for the disk.

One write at a time: the next save waits for the one before, so that at most one copy of the state is held. The copy is
kept and used again, since fresh memory costs more than the copying. On a GPU the copy goes to page-locked memory on a
stream of its own, and only the next update waits for it.
"""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Checkpoint, SavedCheckpoint

Tensors = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedSave:
    """A save that is over."""

    step: int
    """Step after which the state was taken."""
    result: SavedCheckpoint | Exception
    """What is on disk, or why nothing is."""
    blocked_seconds: float
    """Time that the run stood still for it."""
    written_seconds: float
    """Time that writing, syncing and hashing took beside the run."""


class CheckpointWriter:
    """Saves one run's checkpoints into a folder.

    Args:
        folder: The job's checkpoints; made when missing.
        keep_last: How many of the newest stay, >= 1.
    """

    def __init__(self, folder: Path, *, keep_last: int) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._snapshot = _Snapshot()
        self._thread: threading.Thread | None = None
        self._ended: list[EndedSave] = []

    def begin(self, checkpoint: Checkpoint, keep_steps: Collection[int]) -> None:
        """Copies a state and returns; it is then written. Waits for the write before.

        Args:
            checkpoint: The state; its tensors may change after this returns and `release` was called.
            keep_steps: Steps whose checkpoints stay however old they are.
        """
        started = time.monotonic()
        self._join()
        copied = replace(checkpoint, tensors=self._snapshot.take(checkpoint.tensors))
        blocked = time.monotonic() - started
        self._thread = threading.Thread(
            target=self._write, args=(copied, frozenset(keep_steps), blocked), name="checkpoint", daemon=True
        )
        self._thread.start()

    def release(self) -> None:
        """Lets the state be changed: what the device computes from now on comes after the copy."""
        self._snapshot.release()

    def ended(self, *, wait: bool = False) -> list[EndedSave]:
        """Returns the saves that are over and were not returned before, in order; with `wait` none is left open."""
        if self._thread is not None and (wait or not self._thread.is_alive()):
            self._join()
        found, self._ended = self._ended, []
        return found

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, checkpoint: Checkpoint, keep_steps: Collection[int], blocked: float) -> None:
        started = time.monotonic()
        result: SavedCheckpoint | Exception
        try:
            self._snapshot.settle()
            result = checkpoints.save(self._folder, checkpoint, keep_last=self._keep_last, keep_steps=keep_steps)
        except Exception as error:  # noqa: BLE001 - the run hears of it at its next step
            result = error
        self._ended.append(
            EndedSave(
                step=checkpoint.step,
                result=result,
                blocked_seconds=blocked,
                written_seconds=time.monotonic() - started,
            )
        )


class _Snapshot:
    """A copy of tensors on the host, in memory that is used again."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], torch.Tensor] = {}
        self._stream: torch.cuda.Stream | None = None
        self._is_copying = False

    def take(self, tensors: Tensors) -> dict[str, dict[str, torch.Tensor]]:
        """Copies tensors; those of a GPU are there after `settle`."""
        held: dict[tuple[str, str], torch.Tensor] = {}
        for file, named in tensors.items():
            for name, tensor in named.items():
                held[file, name] = self._copy(self._held.get((file, name)), tensor.detach())
        self._held = held  # what is not part of the state any more is let go of
        copies: dict[str, dict[str, torch.Tensor]] = {file: {} for file in tensors}
        for (file, name), tensor in held.items():
            copies[file][name] = tensor
        return copies

    def release(self) -> None:
        """Makes the device's later work wait for the copy."""
        if self._is_copying and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._is_copying = False

    def settle(self) -> None:
        """Waits until the copy is there."""
        if self._stream is not None:
            self._stream.synchronize()

    def _copy(self, place: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
        if place is None or place.shape != tensor.shape or place.dtype != tensor.dtype:
            place = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        if not tensor.is_cuda:
            return place.copy_(tensor)
        if self._stream is None:
            self._stream = torch.cuda.Stream(tensor.device)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        self._is_copying = True
        with torch.cuda.stream(self._stream):
            place.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)  # a temporary may not be used again before it was copied
        return place
