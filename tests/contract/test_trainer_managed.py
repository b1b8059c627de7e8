"""A node under a scheduler: who may start attempts on it, its lease, and inputs and artifacts by digest."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from services.grpckit.errors import ServiceError
from services.registry.signing.keys import Signer
from services.stores.ports import free_ports
from tests.support.node_register import TOKEN, NodeRegister, serving
from tests.support.registry_process import RegistryProcess
from tests.support.trainer_node import TrainerProcess, attempt_name, eventually, running_trainer, scripted_spec
from tuneforge.blobs import BlobClient
from tuneforge.errors import from_rpc_error
from tuneforge.manifest import Manifest, build
from tuneforge.v1 import events_pb2, nodes_pb2, signing_pb2, spec_pb2, trainer_pb2, types_pb2


@pytest.fixture
def register() -> NodeRegister:
    """A scheduler's register."""
    return NodeRegister()


@pytest.fixture
def scheduler(register: NodeRegister) -> Iterator[str]:
    """Its address."""
    with serving(register) as address:
        yield address


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    """A registry that is not yet started."""
    process = RegistryProcess(tmp_path / "registry")
    yield process
    process.kill()


@pytest.fixture
def trainer(tmp_path: Path, scheduler: str, registry: RegistryProcess) -> Iterator[TrainerProcess]:
    """A managed node."""
    env = {"TUNEFORGE_SCHEDULER_ADDRESS": scheduler, "TUNEFORGE_REGISTRY_ADDRESS": registry.address}
    with running_trainer(tmp_path / "trainer", env=env) as process:
        yield process


def _message(manifest: Manifest) -> types_pb2.Manifest:
    files = [types_pb2.ManifestFile(path=f.path, sha256=f.sha256, size_bytes=f.size_bytes) for f in manifest.files]
    return types_pb2.Manifest(files=files, digest=manifest.digest)


def _request(
    name: str, base: Manifest, train: Manifest, *, steps: int = 3, signer: Signer | None = None
) -> trainer_pb2.StartAttemptRequest:
    """Returns a start with base and rows by digest, signed with a registry's key."""
    spec = scripted_spec(steps=steps)
    spec.base.CopyFrom(spec_pb2.BaseModel(model="projects/p/models/m/versions/1"))
    spec.data.train.CopyFrom(spec_pb2.DataSource(dataset="projects/p/datasets/d/versions/1"))
    model_ref = types_pb2.VersionRef(version="projects/p/models/m/versions/1", digest=base.digest)
    data_ref = types_pb2.VersionRef(version="projects/p/datasets/d/versions/1", digest=train.digest)
    layer = trainer_pb2.ModelInput(ref=model_ref, manifest=_message(base), kind=events_pb2.ARTIFACT_KIND_MODEL)
    rows = trainer_pb2.DataInput(ref=data_ref, manifest=_message(train))
    if signer is not None:
        for part, manifest in ((layer, base), (rows, train)):
            signature = signer.sign(part.ref.version, manifest)
            part.signature.CopyFrom(signing_pb2.Signature(key_id=signature.key_id, value=signature.value))
    return trainer_pb2.StartAttemptRequest(
        name=name, token="t", spec=spec, base=[layer], train=rows, manager_token=TOKEN
    )


def _folders(tmp_path: Path) -> tuple[Path, Path]:
    base, rows = tmp_path / "base", tmp_path / "rows"
    for folder, file in ((base, "config.json"), (rows, "rows.jsonl")):
        folder.mkdir()
        (folder / file).write_text("{}\n")
    return base, rows


def test_node_makes_itself_known(trainer: TrainerProcess, register: NodeRegister) -> None:
    """A managed node registers with address and capacity, and sends heartbeats of the same start."""
    node = eventually(lambda: register.registered[0] if register.registered else None, "a registration")
    assert (node.name, node.address, node.is_managed) == ("nodes/n1", trainer.address, True)
    assert node.capacity.slots == 1
    beat = eventually(lambda: register.last_beat(after=3), "heartbeats")
    assert (beat.name, beat.generation, beat.is_draining) == ("nodes/n1", node.generation, False)


def test_strangers_start_nothing(trainer: TrainerProcess, register: NodeRegister) -> None:
    """Without the scheduler's secret, or with a wrong one, a start is refused; local paths are in any case."""
    eventually(lambda: register.last_beat(), "a heartbeat")
    name = attempt_name("stranger")
    for token, reason in (("", "NODE_MANAGED"), ("wrong", "NODE_MANAGED"), (TOKEN, "LOCAL_PATH_REFUSED")):
        request = trainer_pb2.StartAttemptRequest(name=name, token="t", spec=scripted_spec(), manager_token=token)
        with pytest.raises(grpc.RpcError) as caught:
            trainer.stub.StartAttempt(request)
        assert from_rpc_error(caught.value).reason == reason
    assert TOKEN not in trainer.log.read_text()


@pytest.mark.parametrize("reason", ["NOT_FOUND", "DRAINING"])
def test_node_comes_back(trainer: TrainerProcess, register: NodeRegister, reason: str) -> None:
    """After a scheduler that forgot the node, or was restarted, the node registers again as the same start."""
    eventually(lambda: register.last_beat(), "a heartbeat")
    register.refusal = ServiceError(reason, "as the test wants")
    eventually(lambda: len(register.registered) > 1, "a second registration")
    register.refusal = None
    seen = len(register.beats)
    eventually(lambda: register.last_beat(after=seen + 3), "heartbeats again")
    assert len({node.generation for node in register.registered}) == 1


def test_node_follows_the_scheduler_that_leads(tmp_path: Path, register: NodeRegister, scheduler: str) -> None:
    """Of several addresses the one that answers has the node: nobody is at one, one hangs, one begins to stand by."""
    second = NodeRegister()
    with serving(second) as other:
        addresses = f"127.0.0.1:{free_ports(1)[0]},{scheduler},{other}"
        with running_trainer(tmp_path, env={"TUNEFORGE_SCHEDULER_ADDRESS": addresses}):
            eventually(lambda: register.last_beat(after=3), "heartbeats at the second address")
            register.is_silent = True
            eventually(lambda: second.last_beat(after=3), "heartbeats at the third address")
            register.is_silent, seen = False, len(register.beats)
            second.refusal = ServiceError("STANDBY", "another scheduler leads")
            eventually(lambda: register.last_beat(after=seen + 3), "heartbeats at the second address again")
    assert len({node.generation for node in (*register.registered, *second.registered)}) == 1


def test_replaced_node_ends(tmp_path: Path, register: NodeRegister, scheduler: str) -> None:
    """A trainer that hears of a newer start of its node ends by itself, with exit code 0."""
    with running_trainer(tmp_path, env={"TUNEFORGE_SCHEDULER_ADDRESS": scheduler}) as trainer:
        eventually(lambda: register.last_beat(), "a heartbeat")
        register.refusal = ServiceError("STALE_ATTEMPT", "a newer start of the node has registered")
        assert trainer.process
        assert trainer.process.wait(60) == 0


def test_attempt_waits_for_the_registry(
    trainer: TrainerProcess, register: NodeRegister, registry: RegistryProcess, tmp_path: Path
) -> None:
    """With the registry away an attempt waits in STARTING and says so; then it fetches, trains and stores."""
    registry.start()
    base_folder, rows_folder = _folders(tmp_path)
    with BlobClient.connect(registry.address, "p") as blobs:
        base, rows = blobs.upload_folder(base_folder), blobs.upload_folder(rows_folder)
        registry.kill()
        eventually(lambda: register.last_beat(), "a heartbeat")
        name = attempt_name("fetch")
        trainer.stub.StartAttempt(_request(name, base, rows, signer=registry.signer))
        for message in trainer.stub.WatchAttempt(trainer_pb2.WatchAttemptRequest(name=name)):
            if any("waiting for the registry" in event.log.message for event in message.events):
                assert message.status.state == nodes_pb2.ATTEMPT_STATE_STARTING
                break
        beat = eventually(lambda: register.last_beat(holding=name), "a heartbeat with the attempt")
        assert beat.attempts[0].state == nodes_pb2.ATTEMPT_STATE_STARTING
        registry.start()
        events, status = trainer.watch(name)
        assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED
        stored = events[-1].outcome.manifest.files[0]
        blobs.download(stored.sha256, stored.size_bytes, tmp_path / "stored.json")
    assert (tmp_path / "stored.json").read_text() == '{"step": 3}'


def test_training_needs_nobody(
    trainer: TrainerProcess, register: NodeRegister, registry: RegistryProcess, tmp_path: Path
) -> None:
    """With registry and agent killed a managed attempt trains on; its result is stored when they are back."""
    registry.start()
    base_folder, rows_folder = _folders(tmp_path)
    with BlobClient.connect(registry.address, "p") as blobs:
        base, rows = blobs.upload_folder(base_folder), blobs.upload_folder(rows_folder)
    eventually(lambda: register.last_beat(), "a heartbeat")
    name = attempt_name("tough")
    trainer.stub.StartAttempt(_request(name, base, rows, steps=100, signer=registry.signer))
    trainer.wait_step(name, 2)
    registry.kill()
    trainer.end(signal.SIGKILL)
    trainer.start()
    trainer.wait_step(name, 100)
    registry.start()
    events, status = trainer.watch(name)
    assert status.state == nodes_pb2.ATTEMPT_STATE_SUCCEEDED
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.step.step for event in events if event.HasField("step")] == list(range(1, 101))


def test_waiting_attempt_can_be_cancelled(trainer: TrainerProcess, register: NodeRegister, tmp_path: Path) -> None:
    """An attempt whose inputs cannot be had ends as soon as it is cancelled."""
    eventually(lambda: register.last_beat(), "a heartbeat")
    name = attempt_name("hopeless")
    manifest = build(_folders(tmp_path)[0])
    trainer.stub.StartAttempt(_request(name, manifest, manifest))
    trainer.worker_pid(name)
    stop = trainer_pb2.StopAttemptRequest(name=name, token="t", mode=trainer_pb2.STOP_MODE_CANCEL)
    trainer.stub.StopAttempt(stop)
    events, status = trainer.watch(name)
    assert status.state == nodes_pb2.ATTEMPT_STATE_CANCELLED
    assert events[-1].outcome.result == events_pb2.ATTEMPT_RESULT_CANCELLED
