"""The real inference service and the real registry on loopback, in a loop of their own, for blocking tests."""

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from services.grpckit.settings import ServerSettings
from services.grpckit.testing import running_server
from services.inference.__main__ import define
from services.inference.settings import EngineSettings, InferenceSettings
from tests.support.patience import WAIT_LIMIT_S
from tests.support.postgres import postgres_of
from tests.support.registry import PROJECT, RunningRegistry, folder_files, running_registry
from tuneforge.v1 import events_pb2, inference_pb2, models_pb2, types_pb2
from tuneforge.v1.inference_pb2_grpc import InferenceServiceStub

ENGINE = EngineSettings(device="cpu", dtype="fp32", threads=1)
LOOK_EVERY_S = 0.1
"""Seconds between two looks at a real condition: each costs both sides a call, and an engine takes seconds to load."""
Result = TypeVar("Result")


@dataclass(slots=True)
class LoopThread:
    """An event loop in a thread: what is served in it is called from the test's own thread."""

    loop: asyncio.AbstractEventLoop
    stack: AsyncExitStack

    def run(self, work: Awaitable[Result]) -> Result:
        """Runs something in the loop and waits for it."""

        async def awaited() -> Result:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(WAIT_LIMIT_S)


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    """Runs a loop while the block runs, and leaves at its end what was entered into its stack."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="services")
    thread.start()
    running = LoopThread(loop, AsyncExitStack())
    try:
        yield running
    finally:
        running.run(running.stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(slots=True)
class RunningInference:
    """An inference service that takes calls."""

    address: str
    stub: InferenceServiceStub
    stop: Callable[[], None]
    """Drains and ends it, as SIGTERM would; calls that run keep their connection until they have ended."""

    def create(self, deployment: str, model: str, **fields: Any) -> inference_pb2.Deployment:
        """Makes a deployment."""
        return self.stub.CreateDeployment(
            inference_pb2.CreateDeploymentRequest(
                parent=PROJECT, deployment_id=deployment, deployment=inference_pb2.Deployment(model=model), **fields
            )
        )

    def get(self, deployment: str) -> inference_pb2.Deployment:
        """Reads a deployment."""
        return self.stub.GetDeployment(inference_pb2.GetDeploymentRequest(name=name_of(deployment)))

    def loaded(self, deployment: str) -> inference_pb2.Deployment:
        """Waits until a deployment is READY or FAILED."""
        return until(lambda: self.get(deployment), lambda found: found.state != inference_pb2.DEPLOYMENT_STATE_LOADING)

    def deployed(self, deployment: str, model: str) -> inference_pb2.Deployment:
        """Makes a deployment and waits until it answers."""
        self.create(deployment, model)
        found = self.loaded(deployment)
        assert found.state == inference_pb2.DEPLOYMENT_STATE_READY, found.failure
        return found

    def delete(self, deployment: str, **fields: Any) -> inference_pb2.DeleteDeploymentResponse:
        """Deletes a deployment."""
        return self.stub.DeleteDeployment(inference_pb2.DeleteDeploymentRequest(name=name_of(deployment), **fields))

    def stream(self, deployment: str, *prompts: Any, timeout: float | None = WAIT_LIMIT_S, **fields: Any) -> Any:
        """Begins to complete prompts: texts, or lists of (role, content)."""
        request = inference_pb2.GenerateRequest(name=name_of(deployment), **fields)
        request.prompts.extend(prompt_of(prompt) for prompt in prompts)
        return self.stub.Generate(request, timeout=timeout)

    def texts(self, deployment: str, *prompts: Any, **fields: Any) -> list[str]:
        """Completes prompts and returns the whole texts."""
        whole = [""] * len(prompts)
        for piece in self.stream(deployment, *prompts, **fields):
            whole[piece.prompt_index] += piece.text
        return whole


def name_of(deployment: str) -> str:
    """Returns the resource name of a deployment."""
    return f"{PROJECT}/deployments/{deployment}"


def prompt_of(prompt: Any) -> inference_pb2.Prompt:
    """Returns a prompt from a text, or from a list of (role, content)."""
    if isinstance(prompt, str):
        return inference_pb2.Prompt(text=prompt)
    turns = [inference_pb2.ChatMessage(role=role, content=content) for role, content in prompt]
    return inference_pb2.Prompt(conversation=inference_pb2.Conversation(messages=turns))


def until(look: Callable[[], Result], is_enough: Callable[[Result], bool]) -> Result:
    """Looks again and again until what is seen is enough; fails when that does not come in time."""
    end = time.monotonic() + WAIT_LIMIT_S
    pause = threading.Event()
    while not is_enough(found := look()):
        assert time.monotonic() < end, f"still {found}"
        pause.wait(LOOK_EVERY_S)
    return found


def serve_registry(running: LoopThread, data: Path) -> RunningRegistry:
    """Serves a registry until the loop's thread ends."""

    async def enter() -> RunningRegistry:
        return await running.stack.enter_async_context(running_registry(data))

    return running.run(enter())


@contextmanager
def serving_inference(
    running: LoopThread, data: Path, registry_address: str, engine: EngineSettings = ENGINE
) -> Iterator[RunningInference]:
    """Serves the inference service while the block runs; what an earlier one left in `data` is gone on with."""
    common = ServerSettings(service="inference", listen="127.0.0.1:0", data=data, drain_s=WAIT_LIMIT_S)
    settings = InferenceSettings(
        server=common,
        registry_address=registry_address,
        engine=engine,
        postgres=postgres_of("inference", data),
    )
    stack = AsyncExitStack()

    async def enter() -> str:
        found = await stack.enter_async_context(running_server(define(settings), common))
        return found.address

    def stop() -> None:
        running.run(stack.aclose())

    address = running.run(enter())
    try:
        with grpc.insecure_channel(address) as channel:
            yield RunningInference(address, InferenceServiceStub(channel), stop)
    finally:
        stop()


def import_model(running: LoopThread, registry: RunningRegistry, model: str, folder: Path) -> models_pb2.ModelVersion:
    """Imports a folder as a version of a model, which is created when missing."""

    async def work() -> models_pb2.ModelVersion:
        with suppress(grpc.RpcError):  # it is there already
            await registry.model(model)
        return await registry.imported(f"{PROJECT}/models/{model}", folder)

    return running.run(work())


def publish_adapter(
    running: LoopThread, registry: RunningRegistry, model: str, folder: Path, base: models_pb2.ModelVersion
) -> models_pb2.ModelVersion:
    """Publishes a folder as an adapter that a job trained on a base."""

    async def work() -> models_pb2.ModelVersion:
        manifest = await registry.put_files(folder_files(folder))
        reference = types_pb2.VersionRef(version=base.name, digest=base.manifest.digest)
        return await registry.stub.PublishVersion(
            models_pb2.PublishVersionRequest(
                parent=f"{PROJECT}/models/{model}",
                manifest=manifest,
                kind=events_pb2.ARTIFACT_KIND_ADAPTER,
                lineage=models_pb2.Lineage(base=reference, job=f"{PROJECT}/jobs/j-{uuid.uuid4().hex[:8]}", attempt=1),
            )
        )

    return running.run(work())


def finished(pieces: Sequence[inference_pb2.GenerateResponse]) -> dict[int, inference_pb2.GenerateResponse]:
    """Returns the last message of each completion, by prompt."""
    return {piece.prompt_index: piece for piece in pieces if piece.finish_reason}
