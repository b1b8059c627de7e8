"""Checkpoints: whole or not there, and the newest that verifies is read."""

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from services.trainer.engine.checkpoints import Checkpoint, SavedCheckpoint, forget_newer, load, save, saved
from services.trainer.engine.training_task import Fault, TrainingFault
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError


def state(step: int) -> Checkpoint:
    """Returns a small state."""
    return Checkpoint(
        step=step,
        attempt=3,
        facts={"progress": {"loss": 0.1 + 0.2, "step": step}},
        tensors={"weights": {"w": torch.full((4,), float(step))}, "random": {"torch": torch.arange(5)}},
    )


def steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints that verify, the newest first."""
    return [found.step for found in saved(folder) if isinstance(found, SavedCheckpoint)]


def newest(folder: Path) -> SavedCheckpoint:
    """Returns the newest checkpoint that verifies."""
    return next(found for found in saved(folder) if isinstance(found, SavedCheckpoint))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Numbers and tensors come back bit for bit, with the attempt and the digest of the manifest."""
    written = save(tmp_path, state(7), keep_last=2)
    found = load(newest(tmp_path))
    assert (found.step, found.attempt, found.digest) == (7, 3, written.manifest.digest)
    assert found.facts == {"progress": {"loss": 0.1 + 0.2, "step": 7}}
    assert torch.equal(found.tensors["weights"]["w"], torch.full((4,), 7.0))
    assert torch.equal(found.tensors["random"]["torch"], torch.arange(5))


def test_no_checkpoint_before_the_first(tmp_path: Path) -> None:
    """A job without a folder has no checkpoints."""
    assert list(saved(tmp_path / "none")) == []


def test_the_newest_stay(tmp_path: Path) -> None:
    """Older checkpoints than the newest `keep_last` are removed, and nothing else is left in the folder."""
    for step in (5, 10, 15, 20):
        save(tmp_path, state(step), keep_last=2)
    assert steps(tmp_path) == [20, 15]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "added", "manifest"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    """Whatever happened to its files, the reader names it and falls back to the one before."""
    save(tmp_path, state(1), keep_last=2)
    place = save(tmp_path, state(2), keep_last=2).folder
    weights = place / "weights.safetensors"
    content = weights.read_bytes()
    match damage:
        case "flipped":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            weights.write_bytes(content[:-1])
        case "missing":
            weights.unlink()
        case "added":
            (place / "more.safetensors").write_bytes(content)
        case "manifest":
            (place / "manifest.json").write_text("{")
    first, second = saved(tmp_path)
    assert isinstance(first, IntegrityError)
    assert place.name in first.path
    assert isinstance(second, SavedCheckpoint)
    assert second.step == 1


def test_a_checkpoint_cut_at_any_byte_is_passed_over(tmp_path: Path) -> None:
    """Each of its files, at each length: the one before it is taken, and nothing is raised."""
    save(tmp_path, state(1), keep_last=2)
    place = save(tmp_path, state(2), keep_last=2).folder
    for file in sorted(place.iterdir()):
        content = file.read_bytes()
        for length in range(len(content)):
            file.write_bytes(content[:length])
            lacks_line_end = (file.name, length) == ("manifest.json", len(content) - 1)
            assert steps(tmp_path) == ([2, 1] if lacks_line_end else [1]), (file.name, length)
        file.write_bytes(content)
    assert steps(tmp_path) == [2, 1]


def test_what_nobody_knows_of_is_removed(tmp_path: Path) -> None:
    """Checkpoints of an attempt that was given up reach further than the record of the job: they are passed over."""
    for step in (2, 4, 6):
        save(tmp_path, state(step), keep_last=3)
    forget_newer(tmp_path / "missing", 4)
    forget_newer(tmp_path, 4)
    assert steps(tmp_path) == [4, 2]
    forget_newer(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_step_can_be_saved_again(tmp_path: Path) -> None:
    """A later attempt that comes past a damaged checkpoint puts a good one in its place."""
    place = save(tmp_path, state(4), keep_last=2).folder
    (place / "state.json").write_text("{}")
    assert steps(tmp_path) == []
    save(tmp_path, state(4), keep_last=2)
    assert steps(tmp_path) == [4]


@pytest.mark.parametrize("point", range(12))
def test_a_crash_at_any_moment_costs_no_older_checkpoint(
    tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the process dies at any sync or rename of a save, a whole checkpoint is left; the next save cleans up."""

    class Died(BaseException):
        """The process ends here."""

    save(tmp_path, state(1), keep_last=1)
    calls = 0

    def dies_at_its_turn(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == point:
                raise Died
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dies_at_its_turn(os.fsync))
        patch.setattr(Path, "rename", dies_at_its_turn(Path.rename))
        with contextlib.suppress(Died):
            save(tmp_path, state(2), keep_last=1)
    assert steps(tmp_path)[:1] in ([1], [2])
    save(tmp_path, state(3), keep_last=1)
    assert steps(tmp_path) == [3]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault says that the disk is full; the checkpoint before is untouched and nothing half-written is left."""
    save(tmp_path, state(1), keep_last=2)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(TrainingFault) as caught:
            save(tmp_path, state(2), keep_last=2)
    assert (caught.value.reason, caught.value.fault) == (Reason.DISK_FULL, Fault.INFRASTRUCTURE)
    assert steps(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1
