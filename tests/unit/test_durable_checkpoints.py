"""Copies of checkpoints: no run waits for them, a kill costs nothing, a newer one takes the older one's place."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from services.trainer.admission import CheckpointInput, StartRequest
from services.trainer.durable import DurableCheckpoints, begins_from, bring_best, bring_checkpoint, bring_state
from services.trainer.engine import checkpoints
from services.trainer.engine.checkpoints import Checkpoint, SavedCheckpoint
from services.trainer.engine.training_task import Fault, TrainingFault
from services.trainer.events import EventLog, parse
from services.trainer.node_cache import NodeCache
from services.trainer.spool import SpoolReader
from tuneforge.blobs import BlobClient
from tuneforge.errors import NotFound, Reason, TuneforgeError, Unavailable
from tuneforge.manifest import Manifest
from tuneforge.names import AttemptName
from tuneforge.specs.spec import Evaluation, LoraMethod, TrainingSpec
from tuneforge.v1 import events_pb2

JOB = "projects/p/jobs/j"


@dataclass
class Store:
    """A blob store in memory; `before` is called before each file is sent."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None

    @contextmanager
    def connect(self) -> Iterator[BlobClient]:
        """Opens the way to it."""
        yield cast("BlobClient", self)

    def upload_manifest(self, folder: Path, manifest: Manifest) -> None:
        """Takes the files of a manifest."""
        for file in manifest.files:
            self.before(file.path)
            self.blobs[file.sha256] = (folder / file.path).read_bytes()

    def download(self, sha256: str, size_bytes: int, dest: Path) -> None:
        """Gives a file."""
        if sha256 not in self.blobs:
            raise NotFound(Reason.NOT_FOUND, f"no blob {sha256}")
        dest.write_bytes(self.blobs[sha256])
        assert len(self.blobs[sha256]) == size_bytes


class Patience:
    """Waits for nothing and keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def wait(self, seconds: float) -> None:
        """Returns at once."""

    def say_waiting(self, message: str) -> None:
        """Keeps it."""
        self.said.append(message)


class Node:
    """The checkpoints of a job on one node, its events, and the copies into a store."""

    def __init__(self, folder: Path, store: Store, *, attempt: int = 1, **options: Any) -> None:
        self.folder = folder / "checkpoints"
        self.spool = folder / f"spool-{attempt}"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.log = EventLog(self.spool, AttemptName("p", "j", attempt), 0)
        self.sink = DurableCheckpoints(self.log, self.folder, store.connect, **{"every_steps": 1, **options})

    def save(self, *steps: int, best: int = 0) -> None:
        """Saves checkpoints and tells of them; `best` is the step with the lowest validation loss so far."""
        for step in steps:
            facts = {"progress": {"best_step": best}}
            state = Checkpoint(
                step=step, attempt=1, facts=facts, tensors={"weights": {"w": torch.full((9,), float(step))}}
            )
            saved = checkpoints.save(self.folder, state, keep_last=1)
            self.sink.emit(events_pb2.CheckpointSaved(step=step, digest=saved.manifest.digest))

    def durable(self) -> list[events_pb2.CheckpointDurable]:
        """Returns what was told of copies."""
        self.log.sync()
        events = [parse(record.payload) for record in SpoolReader(self.spool, after_seq=0).read()]
        return [event.checkpoint_durable for event in events if event.WhichOneof("payload") == "checkpoint_durable"]

    def end(self) -> None:
        """Ends the run when its copies are done."""
        self.sink.finish(lambda: True)
        self.sink.close()


def input_of(node: Node, step: int, job: str = JOB) -> CheckpointInput:
    """Returns a node's checkpoint as another one is told of it."""
    manifest = checkpoints.manifest_of(checkpoints.place_of(node.folder, step))
    return CheckpointInput(name=f"{job}/checkpoints/{step}", step=step, manifest=manifest)


def test_a_run_that_has_ended_waits_so_long_and_says_so(tmp_path: Path) -> None:
    """A store that takes nothing holds a device for a bounded time; what was not copied is told."""
    store, may_send = Store(), threading.Event()
    store.before = lambda _: cast("None", may_send.wait(60))
    node = Node(tmp_path, store)
    node.save(3)
    node.sink.finish(lambda: True, at_most_s=0.05)
    may_send.set()
    node.sink.close()
    node.log.sync()
    events = [parse(record.payload) for record in SpoolReader(node.spool, after_seq=0).read()]
    (said,) = [event.log.message for event in events if event.WhichOneof("payload") == "log"]
    assert "The checkpoint of step 3 was not copied" in said


def test_what_is_saved_becomes_durable(tmp_path: Path) -> None:
    """Each copy is told once all its files are stored, also of a checkpoint that the node has dropped meanwhile."""
    store, may_send = Store(), threading.Event()
    store.before = lambda _: cast("None", may_send.wait(60))
    node = Node(tmp_path, store)
    node.save(1)
    while not node.sink._is_copying:
        pass
    node.save(2, 3)  # `keep_last` is 1: the files of 1 are gone from its folder, and 3 takes the place of 2
    may_send.set()
    node.end()
    assert [each.step for each in node.durable()] == [1, 3]
    for each in node.durable():
        assert all(file.sha256 in store.blobs for file in each.manifest.files)
    assert not (tmp_path / "copying").exists()


def test_the_registry_may_be_away(tmp_path: Path) -> None:
    """A copy is tried again until the registry is back; it goes on from one file to the next."""
    store, failures = Store(), iter([Unavailable(Reason.PEER_UNAVAILABLE, "restarting")])

    def fails_once(_: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    store.before = fails_once
    node = Node(tmp_path, store)
    node.save(1)
    node.end()
    assert [each.step for each in node.durable()] == [1]


def test_a_refused_copy_does_not_end_the_run(tmp_path: Path) -> None:
    """What the registry will never take is told, and the next checkpoint is tried."""
    store, refusals = Store(), iter([TuneforgeError(Reason.PERMISSION_DENIED, "no")])

    def refuses_once(_: str) -> None:
        if (error := next(refusals, None)) is not None:
            raise error

    store.before = refuses_once
    node = Node(tmp_path, store)
    node.save(1)
    node.sink.finish(lambda: True)
    node.save(2)
    node.end()
    assert [each.step for each in node.durable()] == [2]


@pytest.mark.parametrize("killed_before", ["weights.safetensors", "state.json"])
def test_a_kill_costs_no_checkpoint(tmp_path: Path, killed_before: str) -> None:
    """Broken off before any of its files, the copy is made by the next attempt, which goes on from the same one."""
    store, never = Store(), threading.Event()
    store.before = lambda path: cast("None", path == killed_before and never.wait(1))
    dead = Node(tmp_path, store)
    dead.save(4)
    dead.sink._is_closed = True
    assert dead.durable() == []
    store.before = lambda _: None
    node = Node(tmp_path, store, attempt=2)
    node.sink.emit(events_pb2.ResumedFrom(step=4, digest=input_of(node, 4).manifest.digest))
    node.end()
    assert [each.step for each in node.durable()] == [4]
    never.set()


@pytest.mark.parametrize(("every_steps", "copied"), [(0, []), (2, [1, 3]), (5, [1, 4])])
def test_copies_are_as_rare_as_was_asked(tmp_path: Path, every_steps: int, copied: list[int]) -> None:
    """Steps between copies; the last checkpoint of a run is copied too, unless none is."""
    node = Node(tmp_path, Store(), every_steps=every_steps)
    for step in (1, 2, 3, 4)[: 3 if every_steps == 2 else 4]:
        node.save(step)
        with node.sink._changed:
            while node.sink._waiting is not None or node.sink._is_copying:
                node.sink._changed.wait()
    node.end()
    assert [each.step for each in node.durable()] == copied


def test_another_node_takes_the_newest_that_can_be_had(tmp_path: Path) -> None:
    """A checkpoint whose files are gone is passed over and told; what came is whole, and a resume finds it."""
    store = Store()
    first = Node(tmp_path / "one", store)
    first.save(2)
    candidates = [input_of(first, 2)]
    first.end()
    lost = Node(tmp_path / "lost", Store())
    lost.save(4)
    candidates.insert(0, input_of(lost, 4))
    lost.end()
    patience, folder = Patience(), tmp_path / "two/checkpoints"
    (tmp_path / "two").mkdir()
    found = bring_checkpoint(candidates, folder, NodeCache(tmp_path / "two/cache"), store.connect, patience)
    assert found == candidates[1]
    assert "checkpoints/4" in patience.said[0]
    (saved,) = checkpoints.saved(folder)
    assert isinstance(saved, SavedCheckpoint)
    assert (saved.step, saved.manifest) == (2, candidates[1].manifest)


def test_what_the_node_has_is_not_fetched(tmp_path: Path) -> None:
    """Its own checkpoint of the same step is taken, unless it is damaged."""
    store = Store()
    node = Node(tmp_path, store)
    node.save(2)
    node.end()
    candidates, cache = [input_of(node, 2)], tmp_path / "cache"
    assert bring_checkpoint(candidates, node.folder, NodeCache(cache), store.connect, Patience()) is None
    (checkpoints.place_of(node.folder, 2) / "state.json").write_text("{}")
    assert bring_checkpoint(candidates, node.folder, NodeCache(cache), store.connect, Patience()) == candidates[0]
    assert checkpoints.newest_step(node.folder) == 2


def test_the_best_one_comes_along(tmp_path: Path) -> None:
    """The result may have its weights, so the next node fetches it beside the newest one; once."""
    store = Store()
    first = Node(tmp_path / "one", store)
    candidates: list[CheckpointInput] = []
    for step in (1, 2, 3):
        first.save(step, best=1)
        candidates.insert(0, input_of(first, step))
    first.end()
    folder, cache = tmp_path / "two/checkpoints", NodeCache(tmp_path / "two/cache")
    folder.parent.mkdir()
    assert bring_checkpoint(candidates, folder, cache, store.connect, Patience()) == candidates[0]
    for _ in range(2):
        bring_best(candidates, folder, cache, store.connect, Patience())
        assert [each.step for each in checkpoints.saved(folder) if isinstance(each, SavedCheckpoint)] == [3, 1]
        store.blobs.clear()


def branch(*candidates: CheckpointInput) -> StartRequest:
    """Returns what starts a job that ends with its best weights, with these checkpoints."""
    spec = TrainingSpec(method=LoraMethod(), evaluation=Evaluation(every_steps=1, use_best=True))
    return StartRequest(
        name=AttemptName("p", "branch", 1),
        node_rank=0,
        world_size=1,
        rendezvous="",
        token="",
        manager_token="",
        spec=spec,
        base=(),
        train=None,
        validation=None,
        checkpoints=candidates,
        problems=(),
        content=b"",
    )


def test_a_branch_brings_the_best_one_of_the_other_job(tmp_path: Path) -> None:
    """It begins from the one that it names; the best before that comes beside it, and is never where it begins."""
    store, folder, cache = Store(), tmp_path / "two/checkpoints", NodeCache(tmp_path / "two/cache")
    first = Node(tmp_path / "one", store)
    candidates: list[CheckpointInput] = []
    for step in (1, 3):
        first.save(step, best=1)
        candidates.insert(0, input_of(first, step))
        first.sink.finish(lambda: True)
    first.end()
    folder.parent.mkdir()
    request = branch(*candidates)
    assert begins_from(request) == candidates[0]
    weights = {digest: store.blobs.pop(digest) for digest in [file.sha256 for file in candidates[0].manifest.files]}
    with pytest.raises(TrainingFault, match="checkpoints/3, from which the run begins, cannot be had") as caught:
        bring_state(request, folder, cache, store.connect, Patience())
    assert (caught.value.reason, caught.value.fault) == (Reason.INTEGRITY, Fault.INFRASTRUCTURE)
    store.blobs.update(weights)
    bring_state(request, folder, cache, store.connect, Patience())
    assert [each.step for each in checkpoints.saved(folder) if isinstance(each, SavedCheckpoint)] == [3, 1]
    shutil.rmtree(checkpoints.place_of(folder, 3))
    for digest in weights:
        del store.blobs[digest]
    with pytest.raises(TrainingFault, match="checkpoints/3, from which the run begins, cannot be had"):
        bring_state(request, folder, cache, store.connect, Patience())
