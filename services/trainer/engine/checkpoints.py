"""Checkpoints: folders that are whole or are not there.

A checkpoint is written beside its place: every file is synced, `manifest.json` with the SHA-256 of each comes last,
then one rename puts it in place and the parent folder is synced. A reader takes the newest that verifies, so a crash at
any moment, or a damaged disk, costs steps and never a wrong state. Tensors are safetensors, the rest is JSON: nothing
that is read here can run code.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from services.trainer.engine.faults import disk_full, is_disk_full
from services.trainer.engine.tensor_file import write_pieces, write_tensors
from tuneforge.manifest import IntegrityError, InvalidManifest, Manifest, verify

MANIFEST = "manifest.json"
_STATE = "state.json"
_NAME = re.compile(r"step-(\d{10})")
_WRITING = ".writing-"
_OLD = ".old-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The whole state of a run at the end of a step."""

    step: int
    """Last finished step."""
    attempt: int
    """Attempt that saved it."""
    facts: Mapping[str, Any]
    """What is not a tensor: progress and what was resolved; JSON values."""
    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    """Tensors by file (`weights`, `optimizer`, `random`) and name."""
    digest: str = ""
    """Digest of its manifest; empty before it is saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCheckpoint:
    """A checkpoint on disk."""

    step: int
    """Last finished step."""
    folder: Path
    """Where it is."""
    manifest: Manifest
    """Its files."""


def save(folder: Path, checkpoint: Checkpoint, *, keep_last: int, keep_steps: Collection[int] = ()) -> SavedCheckpoint:
    """Writes a checkpoint durably, then removes the older ones but for `keep_last` in all, and those of some steps.

    Args:
        folder: The job's checkpoints; made when missing.
        checkpoint: The state.
        keep_last: How many of the newest stay, >= 1.
        keep_steps: Steps whose checkpoints stay beside them.

    Raises:
        TrainingFault: DISK_FULL; what was written is removed, and the checkpoints before are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    place = place_of(folder, checkpoint.step)
    writing = folder / f"{_WRITING}{place.name}"
    try:
        manifest = _write(writing, checkpoint)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(writing, ignore_errors=True)
        if not is_disk_full(error):
            raise
        raise disk_full(f"the state after step {checkpoint.step} was not saved", str(error)) from error
    _put_in_place(folder, writing, place)
    for old in (place for place in _places(folder)[keep_last:] if _step(place) not in keep_steps):
        # Renamed first: a folder that is half removed does not look like a checkpoint.
        old.rename(folder / f"{_OLD}{old.name}")
    _remove_leftovers(folder)
    return SavedCheckpoint(step=checkpoint.step, folder=place, manifest=manifest)


def saved(folder: Path) -> Iterator[SavedCheckpoint | IntegrityError]:
    """Yields a job's checkpoints, the newest first; in place of one that does not verify, what is wrong with it."""
    for place in _places(folder):
        try:
            manifest = Manifest.from_json((place / MANIFEST).read_bytes())
            verify(place, manifest, exclude={MANIFEST})
        except IntegrityError as error:
            yield IntegrityError(f"{place.name}/{error.path}", error.expected, error.found)
        except (OSError, InvalidManifest) as error:
            yield IntegrityError(f"{place.name}/{MANIFEST}", "a manifest", str(error))
        else:
            yield SavedCheckpoint(step=_step(place), folder=place, manifest=manifest)


def load(found: SavedCheckpoint) -> Checkpoint:
    """Reads a checkpoint that `saved` has verified; its tensors are on the CPU."""
    content = json.loads((found.folder / _STATE).read_text(encoding="utf-8"))
    tensors = {path.stem: load_file(path) for path in sorted(found.folder.glob("*.safetensors"))}
    return Checkpoint(
        step=found.step,
        attempt=content["attempt"],
        facts=content["facts"],
        tensors=tensors,
        digest=found.manifest.digest,
    )


def newest_facts(folder: Path) -> Mapping[str, Any]:
    """Returns the facts of the newest checkpoint that verifies; empty where there is none."""
    for found in saved(folder):
        if isinstance(found, SavedCheckpoint):
            facts: Mapping[str, Any] = json.loads((found.folder / _STATE).read_text(encoding="utf-8"))["facts"]
            return facts
    return {}


def is_there(folder: Path, step: int) -> bool:
    """Returns whether there is a checkpoint of a step that verifies."""
    return any(isinstance(found, SavedCheckpoint) and found.step == step for found in saved(folder))


def load_step(folder: Path, step: int) -> Checkpoint | None:
    """Reads the checkpoint of a step; None when there is none that verifies."""
    for found in saved(folder):
        if isinstance(found, SavedCheckpoint) and found.step == step:
            return load(found)
    return None


def place_of(folder: Path, step: int) -> Path:
    """Returns where a step's checkpoint is, if there is one."""
    return folder / f"step-{step:010d}"


def manifest_of(place: Path) -> Manifest:
    """Reads the manifest of a checkpoint; its files are not looked at.

    Raises:
        OSError: There is none.
        InvalidManifest: It is damaged.
    """
    return Manifest.from_json((place / MANIFEST).read_bytes())


def forget_newer(folder: Path, step: int) -> None:
    """Removes the checkpoints of later steps than one: nobody has the steps before them on record.

    Args:
        folder: The job's checkpoints; may be missing.
        step: Newest step that stays.
    """
    for place in _places(folder):
        if _step(place) > step:
            place.rename(folder / f"{_OLD}{place.name}")
    if folder.exists():
        _remove_leftovers(folder)


def newest_step(folder: Path) -> int | None:
    """Returns the step of the newest checkpoint that verifies; None where there is none."""
    return next((found.step for found in saved(folder) if isinstance(found, SavedCheckpoint)), None)


def adopt(folder: Path, step: int, files: Path, manifest: Manifest) -> None:
    """Puts a checkpoint that came from elsewhere in its place, durably, with hard links to its files.

    Args:
        folder: The job's checkpoints; made when missing.
        step: Step that it was saved after.
        files: Where its files are, on the same file system.
        manifest: What they must be.

    Raises:
        IntegrityError: They are not.
        OSError: The disk refuses.
    """
    verify(files, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    place = place_of(folder, step)
    writing = folder / f"{_WRITING}{place.name}"
    writing.mkdir()
    for file in manifest.files:
        os.link(files / file.path, writing / file.path)
        _sync(writing / file.path)
    write_pieces(writing / MANIFEST, iter((memoryview(manifest.to_json().encode()),)))
    _put_in_place(folder, writing, place)


def _put_in_place(folder: Path, writing: Path, place: Path) -> None:
    _sync(writing)
    if place.exists():  # the same step of an earlier attempt, found damaged or passed over
        place.rename(folder / f"{_OLD}{place.name}")
    writing.rename(place)
    _sync(folder)


def _write(writing: Path, checkpoint: Checkpoint) -> Manifest:
    writing.mkdir()
    files = [write_tensors(writing / f"{stem}.safetensors", tensors) for stem, tensors in checkpoint.tensors.items()]
    # Numbers survive JSON bit for bit: Python writes the shortest text that reads back as the same float.
    state = {"attempt": checkpoint.attempt, "facts": checkpoint.facts}
    text = json.dumps(state, indent=1) + "\n"
    files.append(write_pieces(writing / _STATE, iter((memoryview(text.encode()),))))
    manifest = Manifest.of(files)
    write_pieces(writing / MANIFEST, iter((memoryview(manifest.to_json().encode()),)))
    return manifest


def _places(folder: Path) -> list[Path]:
    """Returns the folders of checkpoints, the newest first."""
    if not folder.is_dir():
        return []
    places = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(places, key=_step, reverse=True)


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith((_WRITING, _OLD)):
            shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
