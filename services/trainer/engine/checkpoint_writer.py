"""Writes checkpoints beside the training: only an update waits, for the copy of the state, and never for the disk.

The state changes with an update and not before, so it is copied while the next step computes its gradients: by the
thread that writes, or, from a GPU to page-locked memory, on a stream of its own. One write at a time: the next save
waits for the one before, so that at most one copy of the state is held. The copy is kept and used again, since fresh
memory costs more than the copying.
"""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Checkpoint, SavedCheckpoint
from services.trainer.engine.tensor_file import bytes_of

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
        self._save: _Save | None = None
        self._ended: list[EndedSave] = []

    def begin(self, checkpoint: Checkpoint, keep_steps: Collection[int]) -> None:
        """Begins to copy and to write a state. Waits for the write before.

        Args:
            checkpoint: The state; its tensors may change after `release`.
            keep_steps: Steps whose checkpoints stay however old they are.
        """
        started = time.monotonic()
        self._join()
        self._snapshot.begin(checkpoint.tensors)
        self._save = _Save(step=checkpoint.step)
        rest = replace(checkpoint, tensors={})  # so that what was put together for the save alone goes with its copy
        self._save.thread = threading.Thread(
            target=self._write, args=(self._save, rest, frozenset(keep_steps)), name="checkpoint", daemon=True
        )
        self._save.thread.start()
        self._save.blocked_seconds = time.monotonic() - started

    def release(self) -> None:
        """Lets the state be changed: waits for its copy, or makes the later work of a GPU wait for it."""
        if self._save is None:
            return
        started = time.monotonic()
        self._snapshot.release()
        self._save.blocked_seconds += time.monotonic() - started

    def ended(self, *, wait: bool = False) -> list[EndedSave]:
        """Returns the saves that are over and were not returned before, in order; with `wait` none is left open."""
        if self._save is not None and (wait or not self._save.thread.is_alive()):
            self._join()
        found, self._ended = self._ended, []
        return found

    def _join(self) -> None:
        save, self._save = self._save, None
        if save is None:
            return
        save.thread.join()
        self._ended.append(
            EndedSave(
                step=save.step,
                result=save.result,
                blocked_seconds=save.blocked_seconds,
                written_seconds=save.written_seconds,
            )
        )

    def _write(self, save: "_Save", checkpoint: Checkpoint, keep_steps: Collection[int]) -> None:
        started = time.monotonic()
        try:
            copied = replace(checkpoint, tensors=self._snapshot.copies())
            save.result = checkpoints.save(self._folder, copied, keep_last=self._keep_last, keep_steps=keep_steps)
        except Exception as error:  # noqa: BLE001 - the run hears of it at its next step
            save.result = error
        save.written_seconds = time.monotonic() - started


@dataclass(slots=True, kw_only=True)
class _Save:
    """A save under way."""

    step: int
    thread: threading.Thread = field(init=False)
    blocked_seconds: float = 0.0
    written_seconds: float = 0.0
    result: SavedCheckpoint | Exception = field(init=False)
    """Set when the write is over."""


class _Snapshot:
    """A copy of tensors on the host, in memory that is used again."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, torch.Tensor]] = {}
        self._left: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._is_copied = threading.Event()
        self._stream: torch.cuda.Stream | None = None
        self._is_copying = False

    def begin(self, tensors: Tensors) -> None:
        """Takes tensors on: those of a GPU are on their way when it returns, the others are copied by `copies`."""
        self._is_copied.clear()
        before, self._held = self._held, {}  # what is not part of the state any more is let go of
        for file, named in tensors.items():
            self._held[file] = {name: _place(before.get(file, {}).get(name), each) for name, each in named.items()}
            for name, tensor in named.items():
                pair = (self._held[file][name], tensor.detach())
                if tensor.is_cuda:
                    self._send(*pair)
                else:
                    self._left.append(pair)

    def copies(self) -> dict[str, dict[str, torch.Tensor]]:
        """Returns the copies, by file and name, once all are there."""
        try:
            for place, tensor in self._left:
                # NumPy copies in this thread alone; torch would start a pool of threads for it.
                np.copyto(bytes_of(place), bytes_of(tensor))
        finally:
            self._left = []
            self._is_copied.set()
        if self._stream is not None:
            self._stream.synchronize()
        return self._held

    def release(self) -> None:
        """Waits for the copies of this host, and makes the later work of a GPU wait for its own."""
        self._is_copied.wait()
        if self._is_copying and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._is_copying = False

    def _send(self, place: torch.Tensor, tensor: torch.Tensor) -> None:
        if self._stream is None:
            self._stream = torch.cuda.Stream(tensor.device)
        self._stream.wait_stream(torch.cuda.current_stream(tensor.device))
        self._is_copying = True
        with torch.cuda.stream(self._stream):
            place.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._stream)  # a temporary may not be used again before it was copied


def _place(place: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
    """Returns memory for a copy of a tensor: the memory of the copy before when it fits."""
    if place is not None and place.shape == tensor.shape and place.dtype == tensor.dtype:
        return place
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
