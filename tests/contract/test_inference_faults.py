"""What a deployment goes through: damaged files, dead engines, an absent registry, restarts and drains."""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.modelkit.artifacts import artifact_folder
from tests.contract.test_inference import refused
from tests.support.inference import (
    ENGINE,
    LoopThread,
    import_model,
    loop_thread,
    publish_adapter,
    serve_registry,
    serving_inference,
    until,
)
from tests.support.registry import RunningRegistry
from tests.support.tiny_model import make_tiny_adapter, make_tiny_model
from tuneforge.errors import Reason
from tuneforge.v1 import errors_pb2, inference_pb2, models_pb2, retention_pb2, types_pb2

LOADING, READY, FAILED = (
    inference_pb2.DEPLOYMENT_STATE_LOADING,
    inference_pb2.DEPLOYMENT_STATE_READY,
    inference_pb2.DEPLOYMENT_STATE_FAILED,
)
LONG = 480


@pytest.fixture(scope="module", name="loop")
def _loop() -> Iterator[LoopThread]:
    with loop_thread() as loop:
        yield loop


@pytest.fixture(scope="module", name="registry")
def _registry(loop: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> RunningRegistry:
    return serve_registry(loop, tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module", name="base")
def _base(
    loop: LoopThread, registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory
) -> models_pb2.ModelVersion:
    return import_model(loop, registry, "tiny", make_tiny_model(tmp_path_factory.mktemp("model")))


def engines() -> list[psutil.Process]:
    """Returns the engines that this process has started."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "services.inference.engine" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def test_a_dead_engine_is_restarted(
    loop: LoopThread, registry: RunningRegistry, base: models_pb2.ModelVersion, tmp_path: Path
) -> None:
    """A killed engine ends running requests with ENGINE_NOT_READY; its deployments load again and answer as before."""
    adapter = publish_adapter(loop, registry, "tuned", make_tiny_adapter(tmp_path / "a"), base)
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.create("base", base.name)
        refused(inference.stream("base", "the"), Reason.ENGINE_NOT_READY)  # it is loading
        inference.loaded("base")
        inference.deployed("tuned", adapter.name)
        [engine] = engines()
        before = inference.texts("tuned", "the", max_new_tokens=8)
        running = inference.stream("base", "the", max_new_tokens=LONG)
        next(running)
        engine.kill()
        error = refused(running, Reason.ENGINE_NOT_READY)
        assert error.retry_after_s
        until(lambda: [inference.get(name).state for name in ("base", "tuned")], lambda states: states == [READY] * 2)
        assert [other.pid for other in engines()] != [engine.pid]
        assert inference.texts("tuned", "the", max_new_tokens=8) == before


def test_an_engine_that_hangs_is_restarted(
    loop: LoopThread, registry: RunningRegistry, base: models_pb2.ModelVersion, tmp_path: Path
) -> None:
    """An engine that reads no request in its time ends it with ENGINE_NOT_READY, and another one answers the next."""
    impatient = dataclasses.replace(ENGINE, intake_limit_s=3)
    with serving_inference(loop, tmp_path / "data", registry.address, impatient) as inference:
        inference.deployed("base", base.name)
        before = inference.texts("base", "the", max_new_tokens=8)
        [engine] = engines()
        engine.suspend()
        until(engine.status, lambda status: status == psutil.STATUS_STOPPED)
        refused(inference.stream("base", "the"), Reason.ENGINE_NOT_READY)
        # The state tells of the loss a moment after the caller has heard of it: so first the other engine, then READY.
        until(lambda: {other.pid for other in engines()}, lambda pids: bool(pids - {engine.pid}))
        until(lambda: inference.get("base").state, lambda state: state == READY)
        assert inference.texts("base", "the", max_new_tokens=8) == before


def test_deployments_come_back_after_a_restart(
    loop: LoopThread, base: models_pb2.ModelVersion, tmp_path: Path, registry: RunningRegistry
) -> None:
    """A restarted service serves what it served, with the registry away: the files are in its cache."""
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.deployed("base", base.name)
        before = inference.texts("base", "the", max_new_tokens=8)
    assert not engines()
    with serving_inference(loop, tmp_path / "data", "127.0.0.1:9") as inference:
        assert inference.loaded("base").state == READY
        assert inference.texts("base", "the", max_new_tokens=8) == before
        refused(lambda: inference.create("more", base.name), Reason.PEER_UNAVAILABLE)


def test_a_changed_byte_is_refused_by_name(
    loop: LoopThread, registry: RunningRegistry, base: models_pb2.ModelVersion, tmp_path: Path
) -> None:
    """A file that changed in the cache fails the deployment with INTEGRITY and its name; made anew, it is served."""
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.deployed("base", base.name)
    weights = artifact_folder(tmp_path / "data" / "cache", base.manifest.digest) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        found = inference.loaded("base")
        assert found.state == FAILED
        assert found.failure.reason == errors_pb2.ERROR_REASON_INTEGRITY
        assert found.failure.fault == types_pb2.FAULT_CLASS_INFRASTRUCTURE
        assert "model.safetensors" in found.failure.message
        assert found.failure.metadata["file"] == "model.safetensors"
        assert found.failure.cure
        error = refused(inference.stream("base", "the"), Reason.WRONG_STATE)
        assert "model.safetensors" in error.message
        inference.delete("base")
        inference.deployed("base", base.name)
        assert inference.texts("base", "the")


def test_running_requests_outlive_their_deployment(
    loop: LoopThread, registry: RunningRegistry, base: models_pb2.ModelVersion, tmp_path: Path
) -> None:
    """A deleted deployment takes no new request, finishes the running one, and then its engine ends."""
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.deployed("base", base.name)
        running = inference.stream("base", "the", max_new_tokens=LONG)
        first = next(running)
        inference.delete("base")
        refused(inference.stream("base", "the"), Reason.NOT_FOUND)
        pieces = [first, *running]
        assert pieces[-1].finish_reason
        until(engines, lambda found: not found)


def test_a_drain_finishes_running_requests(
    loop: LoopThread, registry: RunningRegistry, base: models_pb2.ModelVersion, tmp_path: Path
) -> None:
    """A service that is told to end answers what it had begun."""
    pieces: list[inference_pb2.GenerateResponse] = []
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.deployed("base", base.name)
        running = inference.stream("base", "the", max_new_tokens=LONG)
        pieces.append(next(running))
        reader = threading.Thread(target=lambda: pieces.extend(running))
        reader.start()
        inference.stop()
        reader.join()
    assert pieces[-1].finish_reason
    assert not engines()


def test_a_deployment_waits_for_an_absent_registry(
    loop: LoopThread, base: models_pb2.ModelVersion, registry: RunningRegistry, tmp_path: Path
) -> None:
    """A deployment whose files are not here stays LOADING while the registry is away, and never fails for it."""
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        inference.create("base", base.name)
    for folder in ("artifacts", "blobs"):
        path = tmp_path / "data" / "cache" / folder
        path.rename(tmp_path / folder) if path.exists() else None
    with serving_inference(loop, tmp_path / "data", "127.0.0.1:9") as inference:
        assert inference.get("base").state == LOADING
        refused(inference.stream("base", "the"), Reason.ENGINE_NOT_READY)
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        assert inference.loaded("base").state == READY


def test_what_is_deployed_cannot_be_deleted(loop: LoopThread, registry: RunningRegistry, tmp_path: Path) -> None:
    """The deployment is named to who tries, also after a restart; once it is gone, so are its hold and the reason."""
    version = import_model(loop, registry, "held", make_tiny_model(tmp_path / "model"))
    delete = retention_pb2.DeleteModelVersionRequest(name=version.name)

    def is_held(by: str) -> bool:
        found = registry.blocking.GetRetention(retention_pb2.GetRetentionRequest(name=version.name))
        return by in {holder.name for holder in found.holders if holder.kind == retention_pb2.HOLDER_KIND_DEPLOYMENT}

    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        name = inference.deployed("held", version.name).name
        refused(lambda: inference.create("held", version.name), Reason.ALREADY_EXISTS)
        error = refused(lambda: registry.blocking.DeleteModelVersion(delete), Reason.IN_USE)
        assert f"deployment {name}" in str(error)
    registry.blocking.ReleaseVersions(retention_pb2.ReleaseVersionsRequest(holder=name))  # as if it had been lost
    with serving_inference(loop, tmp_path / "data", registry.address) as inference:
        until(lambda: is_held(name), bool)
        inference.loaded("held")
        inference.delete("held")
        until(lambda: is_held(name), lambda held: not held)
        registry.blocking.DeleteModelVersion(delete)
        refused(lambda: inference.create("held", version.name), Reason.NOT_FOUND)
