"""What trainer and inference use is what the registry signed: any change is refused before a byte of it is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.grpckit.settings import PeerSettings
from services.inference.deployments import Layer
from services.inference.peers import RegistryFiles
from services.modelkit.trust import KEYS_FILE, Trust, TrustSettings
from services.trainer.admission import StartRequest
from services.trainer.inputs import Inputs, bring
from services.trainer.node_cache import NodeCache
from services.trainer.orders import Assignment
from services.trainer.wire import read_start
from services.trainer.worker import named
from tests.contract.test_inference import refused
from tests.support.inference import (
    LoopThread,
    import_model,
    loop_thread,
    serve_registry,
    serving_inference,
)
from tests.support.registry import PROJECT, RunningRegistry
from tests.support.tiny_model import make_tiny_model, write_rows
from tuneforge import _wire
from tuneforge.errors import Reason
from tuneforge.manifest import IntegrityError, Manifest, ManifestFile
from tuneforge.names import AttemptName
from tuneforge.signatures import Signature, SignatureError
from tuneforge.v1 import datasets_pb2, errors_pb2, inference_pb2, lineage_pb2, models_pb2, trainer_pb2, types_pb2


class Impatient:
    """Does not wait: nothing in these tests is worth it."""

    def wait(self, seconds: float) -> None:
        """Fails."""
        raise AssertionError(f"it would wait {seconds} s")

    def say_waiting(self, message: str) -> None:
        """Says nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """A registry with a model and rows."""

    loop: LoopThread
    registry: RunningRegistry
    base: models_pb2.ModelVersion
    rows: datasets_pb2.DatasetVersion

    def request(self) -> StartRequest:
        """Returns what starts an attempt on both."""
        message = trainer_pb2.StartAttemptRequest(name="projects/default/jobs/j/attempts/1")
        message.spec.base.model = self.base.name
        for layer, version in ((message.base.add(), self.base), (message.train, self.rows)):
            layer.ref.CopyFrom(types_pb2.VersionRef(version=version.name, digest=version.manifest.digest))
            layer.manifest.CopyFrom(version.manifest)
            layer.signature.CopyFrom(version.signature)
        message.base[0].kind = self.base.kind
        return read_start(message)

    def bring(self, node: Path, request: StartRequest, *, registry: str = "") -> Inputs:
        """Brings the inputs of an attempt to a node, as its worker does."""
        assignment = Assignment(
            name=AttemptName("default", "j", 1),
            node_rank=0,
            token="",
            accepted_at=0.0,
            slot=0,
            device_index=None,
            threads=1,
            base=None,
            train=None,
            validation=None,
            checkpoints="",
            output="",
            is_kept=False,
            cache=str(node / "cache"),
            registry=registry or self.registry.address,
            spool_bytes=0,
            oom_kills=None,
        )
        return bring(request, assignment, NodeCache(Path(assignment.cache)), Impatient())

    @contextmanager
    def damaged(self, sha256: str) -> Iterator[None]:
        """Flips a bit of a blob on the registry's disk while the block runs."""
        blob = next((self.registry.data / "blobs").rglob(f"*{sha256}*"))
        content = blob.read_bytes()
        blob.chmod(0o600)
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        yield
        blob.write_bytes(content)


@pytest.fixture(scope="module", name="world")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with loop_thread() as loop:
        registry = serve_registry(loop, folder / "registry")
        base = import_model(loop, registry, "tiny", make_tiny_model(folder / "tiny"))

        async def rows() -> datasets_pb2.DatasetVersion:
            files = await registry.put_files({"train.jsonl": write_rows(folder / "rows.jsonl").read_bytes()})
            request = datasets_pb2.CreateDatasetVersionRequest(parent=await registry.dataset(), manifest=files)
            return await registry.stub.CreateDatasetVersion(request)

        yield World(loop, registry, base, loop.run(rows()))


def test_a_trainer_needs_the_registry_once(world: World, tmp_path: Path) -> None:
    """Keys are met at the first load; with inputs and keys on the node, the next load needs nobody."""
    inputs = world.bring(tmp_path, world.request())
    inputs.base[0].verify()
    assert (tmp_path / KEYS_FILE).is_file()
    assert world.bring(tmp_path, world.request(), registry="127.0.0.1:1") == inputs


def test_a_trainer_asks_for_a_signature_that_did_not_come(world: World, tmp_path: Path) -> None:
    """Who starts an attempt by hand need not send signatures: the registry has them."""
    request = world.request()
    unsigned = replace(request, base=tuple(replace(layer, signature=None) for layer in request.base))
    assert world.bring(tmp_path, unsigned).base[0].digest == world.base.manifest.digest


def test_a_trainer_refuses_what_was_not_signed(world: World, tmp_path: Path) -> None:
    """Another manifest, another version's signature, a forged one, files of no version: each is refused as such."""
    request = world.request()
    layer = request.base[0]
    files = (*layer.manifest.files[1:], replace(layer.manifest.files[0], sha256=layer.manifest.files[1].sha256))
    swapped = Manifest.of(files)
    assert layer.signature is not None
    forged = Signature(layer.signature.key_id, bytes(70))
    stranger = Signature("0" * 64, layer.signature.value)
    assert request.train is not None
    for changed in (
        replace(layer, manifest=swapped, digest=swapped.digest),
        replace(layer, signature=request.train.signature),
        replace(layer, signature=forged),
        replace(layer, signature=stranger),
        replace(layer, version=""),
    ):
        with pytest.raises(SignatureError):
            world.bring(tmp_path, replace(request, base=(changed,)))
    assert not (tmp_path / "cache").exists()
    assert named(SignatureError("x")).reason == Reason.SIGNATURE


def test_a_trainer_names_the_file_that_was_changed(world: World, tmp_path: Path) -> None:
    """A flipped bit on the registry's disk is found on arrival, and the file of the version is named."""
    file = next(file for file in world.base.manifest.files if file.path == "model.safetensors")
    with world.damaged(file.sha256), pytest.raises(IntegrityError) as caught:
        world.bring(tmp_path, world.request())
    assert caught.value.path == "model.safetensors"


@pytest.mark.parametrize("change", ["flipped", "added", "removed", "renamed", "linked"])
def test_a_changed_folder_is_refused_at_load(world: World, tmp_path: Path, change: str) -> None:
    """Whatever is done to the files on the node, the load that follows names the file."""
    (artifact,) = world.bring(tmp_path, world.request()).base
    config = artifact.folder / "config.json"
    content = config.read_bytes()
    config.unlink()
    if change == "flipped":
        config.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif change == "added":
        config.write_bytes(content)
        (artifact.folder / "extra.json").write_text("{}")
    elif change == "renamed":
        (artifact.folder / "config.json.bak").write_bytes(content)
    elif change == "linked":
        (tmp_path / "elsewhere.json").write_bytes(content)
        config.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(IntegrityError) as caught:
        artifact.verify()
    assert caught.value.path == ("extra.json" if change == "added" else "config.json")


def test_inference_refuses_what_was_changed(world: World, tmp_path: Path) -> None:
    """A deployment of a damaged model fails and names the file; the undamaged one is fetched."""
    file = next(file for file in world.base.manifest.files if file.path == "config.json")
    with serving_inference(world.loop, tmp_path, world.registry.address) as service, world.damaged(file.sha256):
        service.create("damaged", world.base.name)
        failed = service.loaded("damaged")
    assert failed.state == inference_pb2.DEPLOYMENT_STATE_FAILED
    assert failed.failure.reason == errors_pb2.ERROR_REASON_INTEGRITY
    assert failed.failure.metadata["file"] == "config.json"


def test_inference_trusts_pinned_keys_only(world: World, tmp_path: Path) -> None:
    """With a pinned id another key's signature is refused; with the right one the files come."""
    layer = Layer(
        version=world.base.name,
        kind="model",
        manifest=_wire.manifest(world.base.manifest),
        signature=Signature(world.base.signature.key_id, world.base.signature.value),
    )

    def files(*ids: str) -> RegistryFiles:
        trust = Trust(tmp_path / KEYS_FILE, TrustSettings(key_ids=frozenset(ids)))
        return RegistryFiles(world.registry.address, PeerSettings(), tmp_path / "cache", trust)

    with pytest.raises(SignatureError, match="not trusted here"):
        files("f" * 64).fetch(layer)
    assert files(world.base.signature.key_id).fetch(layer).is_dir()
    other = ManifestFile("config.json", "0" * 64, 1)
    with pytest.raises(SignatureError, match="does not fit"):
        files(world.base.signature.key_id).fetch(replace(layer, manifest=Manifest.of([other])))


def test_no_deployment_takes_a_tainted_model(world: World, tmp_path: Path) -> None:
    """What was made from revoked data is not deployed anew; who asks is told why."""
    reference = types_pb2.VersionRef(version=world.rows.name, digest=world.rows.manifest.digest)
    lineage = models_pb2.Lineage(dataset=reference, job=f"{PROJECT}/jobs/tainted", attempt=1)

    async def tainted() -> str:
        request = models_pb2.PublishVersionRequest(
            parent=f"{PROJECT}/models/tainted", manifest=world.base.manifest, kind=world.base.kind, lineage=lineage
        )
        made = await world.registry.stub.PublishVersion(request)
        await world.registry.stub.RevokeDataset(
            lineage_pb2.RevokeDatasetRequest(name=world.rows.name, reason="private")
        )
        return made.name

    model = world.loop.run(tainted())
    with serving_inference(world.loop, tmp_path / "inference", world.registry.address) as service:
        error = refused(lambda: [service.create("tainted", model)], Reason.REVOKED)
    assert "private" in error.message
