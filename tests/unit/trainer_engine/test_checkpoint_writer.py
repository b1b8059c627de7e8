"""Checkpoints beside the training: what is written is the state at the time of the save, whatever comes after it."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from services.trainer.engine import checkpoint_writer, checkpoints
from services.trainer.engine.checkpoint_writer import CheckpointWriter
from services.trainer.engine.checkpoints import Checkpoint, SavedCheckpoint, load, saved
from services.trainer.engine.tensor_file import bytes_of, write_tensors
from services.trainer.engine.training_task import TrainingFault
from tests.unit.trainer_engine.test_checkpoints import newest, steps
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError, sha256_file

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


def state(step: int, weight: torch.Tensor) -> Checkpoint:
    """Returns a state with one weight."""
    return Checkpoint(step=step, attempt=1, facts={}, tensors={"weights": {"w": weight}})


@settings(deadline=None, max_examples=40)
@given(shapes=st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=3)), max_size=6))
def test_any_tensors_come_back(shapes: list[tuple[torch.dtype, list[int]]], tmp_path_factory: object) -> None:
    """The library reads the file as it reads its own, and the digest is that of the bytes on disk."""
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    path = tmp_path_factory.mktemp("tensors") / "some.safetensors"
    tensors = {f"t{index}": torch.ones(shape).cumsum(0).to(kind) if shape else torch.tensor(3).to(kind)
               for index, (kind, shape) in enumerate(shapes)}  # fmt: skip
    entry = write_tensors(path, tensors)
    assert (entry.sha256, entry.size_bytes) == (sha256_file(path), path.stat().st_size)
    read = load_file(path)
    save_file(tensors, path.with_name("theirs"))
    theirs = load_file(path.with_name("theirs"))
    assert read.keys() == theirs.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_the_state_may_change_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on before the disk has anything; the file has the weights of the save."""
    may_write = threading.Event()
    save = checkpoints.save

    def waits(*arguments: object, **options: object) -> SavedCheckpoint:
        assert may_write.wait(60)
        return save(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "save", waits)
    writer, weight = CheckpointWriter(tmp_path, keep_last=2), torch.full((3,), 1.0)
    writer.begin(state(1, weight), ())
    writer.release()
    weight.fill_(2.0)
    assert writer.ended() == []
    may_write.set()
    (first,) = writer.ended(wait=True)
    assert torch.equal(load(newest(tmp_path)).tensors["weights"]["w"], torch.full((3,), 1.0))
    writer.begin(state(2, weight), ())  # into the same copy
    (second,) = writer.ended(wait=True)
    assert torch.equal(load(newest(tmp_path)).tensors["weights"]["w"], torch.full((3,), 2.0))
    assert (first.step, second.step) == (1, 2)
    assert writer.ended(wait=True) == []


def test_an_update_waits_for_the_copy_and_for_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run computes while its state is copied; what it waits for then is told as time that it stood still."""
    copying, may_copy = threading.Event(), threading.Event()

    def waits(tensor: torch.Tensor) -> object:
        copying.set()
        assert may_copy.wait(60)
        return bytes_of(tensor)

    monkeypatch.setattr(checkpoint_writer, "bytes_of", waits)
    writer, weight = CheckpointWriter(tmp_path, keep_last=2), torch.full((3,), 1.0)
    writer.begin(state(1, weight), ())
    assert copying.wait(60)

    standing, release = threading.Event(), writer._snapshot.release

    def stands_still() -> None:
        standing.set()
        release()

    def moves() -> None:
        writer.release()
        weight.fill_(2.0)

    monkeypatch.setattr(writer._snapshot, "release", stands_still)

    update = threading.Thread(target=moves)
    update.start()
    assert standing.wait(60)
    update.join(0.1)
    assert update.is_alive()
    may_copy.set()
    update.join()
    (ended,) = writer.ended(wait=True)
    assert 0.05 <= ended.blocked_seconds <= ended.written_seconds
    assert torch.equal(load(newest(tmp_path)).tensors["weights"]["w"], torch.full((3,), 1.0))


def test_a_copy_that_fails_lets_the_run_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong is the result of the save; no update waits for ever."""

    def fails(tensor: torch.Tensor) -> object:
        raise MemoryError(f"no room for {tensor.shape}")

    monkeypatch.setattr(checkpoint_writer, "bytes_of", fails)
    writer = CheckpointWriter(tmp_path, keep_last=2)
    writer.begin(state(1, torch.ones(2)), ())
    writer.release()
    (ended,) = writer.ended(wait=True)
    assert isinstance(ended.result, MemoryError)


def test_one_write_at_a_time(tmp_path: Path) -> None:
    """Saves that follow each other at once are all there, in order, and each is told once."""
    writer = CheckpointWriter(tmp_path, keep_last=9)
    for step in range(1, 6):
        writer.begin(state(step, torch.full((1000,), float(step))), ())
    assert [ended.step for ended in writer.ended(wait=True)] == [1, 2, 3, 4, 5]
    assert steps(tmp_path) == [5, 4, 3, 2, 1]


def test_a_full_disk_is_told_after_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The save begins as any other; what comes of it is the fault, and the checkpoint before is untouched."""
    writer = CheckpointWriter(tmp_path, keep_last=2)
    writer.begin(state(1, torch.ones(2)), ())
    writer.ended(wait=True)

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        writer.begin(state(2, torch.ones(2)), ())
        (ended,) = writer.ended(wait=True)
    assert isinstance(ended.result, TrainingFault)
    assert ended.result.reason is Reason.DISK_FULL
    assert steps(tmp_path) == [1]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_checkpoint_cut_at_any_byte_is_passed_over(data: st.DataObject, tmp_path_factory: object) -> None:
    """Whichever file lost its end, or one bit, and wherever: the newest checkpoint that verifies is the one before."""
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    folder = tmp_path_factory.mktemp("cut")
    checkpoints.save(folder, state(1, torch.arange(50.0)), keep_last=2)
    place = checkpoints.save(folder, state(2, torch.arange(50.0)), keep_last=2).folder
    path = data.draw(st.sampled_from(sorted(place.iterdir())))
    content = bytearray(path.read_bytes())
    if path.name == checkpoints.MANIFEST:  # its last byte is a line break that nobody misses
        content = content[: data.draw(st.integers(0, len(content) - 2))]
    elif data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    first, second = saved(folder)
    assert isinstance(first, IntegrityError)
    assert isinstance(second, SavedCheckpoint)
    assert second.step == 1
