"""Keeps every deployment served: loads it, puts it back after its engine died, and answers from it.

Each deployment has one task, which fetches its files, has them verified and loaded by the engine of its base, and then
watches that engine. Nothing is lost by a restart: deployments are in the database and are loaded again.
"""

import asyncio
import contextlib
import dataclasses
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Protocol

from services.grpckit import context
from services.grpckit.database import Database
from services.grpckit.errors import Reason, ServiceError, invalid_fields, not_found
from services.grpckit.logging import get_logger
from services.inference import store
from services.inference.deployments import Deployment, DeploymentState, Failure, Layer
from services.inference.engines import (
    ComputationFailed,
    Engine,
    EngineLost,
    EnginePool,
    LoadRefused,
    Piece,
    PromptsRefused,
)
from services.inference.framing import Message
from services.inference.generation import MAX_PROMPTS, GenerationRequest, check
from services.modelkit.artifacts import discard
from tuneforge.errors import TABLE, FieldViolation, TuneforgeError
from tuneforge.manifest import IntegrityError, StoredDamage
from tuneforge.names import DeploymentName
from tuneforge.signatures import SignatureError

_log = get_logger(__name__)
_LOAD_CRASHES: Final = 3
"""Engines that may die of loading one model before it counts as unloadable."""
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0
_MARGIN_S: Final = 0.02
"""Left of the caller's deadline for the answer that says so."""


class Files(Protocol):
    """Where the files of layers come from; see `peers.RegistryFiles`."""

    cache: Path

    def fetch(self, layer: Layer) -> Path:
        """Brings a layer's files into the cache and returns their folder; called in a thread."""
        ...


@dataclasses.dataclass(slots=True, eq=False)
class _Live:
    """A deployment and what serves it."""

    deployment: Deployment
    task: asyncio.Task[None] | None = None
    engine: Engine | None = None
    """Set while it is READY."""
    running: int = 0
    """Requests that are being answered."""
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set while none is."""


class _Unfit(Exception):
    """A deployment cannot be served."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Serving:
    """All deployments."""

    def __init__(self, database: Database, files: Files, pool: EnginePool) -> None:
        """Takes the open database, where files come from, and the engines."""
        self._database = database
        self._files = files
        self._pool = pool
        self._live: dict[DeploymentName, _Live] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to load every deployment that there was before."""
        for deployment in await self._database.write(store.every_as_loading):
            self.add(deployment)

    def add(self, deployment: Deployment) -> None:
        """Begins to load a deployment."""
        live = self._live[deployment.name] = _Live(deployment.with_state(DeploymentState.LOADING))
        live.idle.set()
        live.task = asyncio.create_task(self._keep(live), name=f"keep-{deployment.name}")

    def as_it_is(self, deployment: Deployment) -> Deployment:
        """Returns a stored deployment in the state that it has at this moment; the database follows a little later."""
        live = self._live.get(deployment.name)
        if live is None:
            return deployment
        is_served = live.engine is not None and not live.engine.lost.is_set()
        if live.deployment.state is DeploymentState.READY and not is_served:
            return live.deployment.with_state(DeploymentState.LOADING)
        return live.deployment

    def remove(self, name: DeploymentName) -> None:
        """Takes no more requests for a deployment; what serves it goes when the running ones have ended."""
        live = self._live.pop(name, None)
        if live is not None:
            task = asyncio.create_task(self._leave(live), name=f"leave-{name}")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def drain(self, limit_s: float) -> None:
        """Waits until the running requests have ended, at most `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for live in list(self._live.values()):
                    await live.idle.wait()
                await asyncio.gather(*self._leaving)

    async def close(self) -> None:
        """Ends all tasks and engines."""
        tasks = [*self._leaving, *(live.task for live in self._live.values() if live.task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()

    async def generate(
        self, name: DeploymentName, request: GenerationRequest
    ) -> AsyncIterator[tuple[Deployment, Piece]]:
        """Completes prompts; each piece comes with the deployment whose layers it was made from.

        Raises:
            ServiceError: every error that `Generate` documents.
        """
        live = self._live.get(name)
        if live is None:
            raise not_found("deployment", name)
        violations = check(request)
        engine = live.engine
        if engine is None:
            raise invalid_fields(violations) if violations else _not_ready(live.deployment)
        deployment = live.deployment
        live.running += 1
        live.idle.clear()
        pieces = engine.generate(_order(deployment, request, violations), _deadline())
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    yield deployment, piece
        except PromptsRefused as error:
            raise invalid_fields(error.violations) from None
        except TimeoutError:
            message = "the deadline passed before the completions ended; the pieces that were sent are right"
            raise ServiceError(Reason.DEADLINE_EXCEEDED, message) from None
        except EngineLost:
            raise ServiceError(
                Reason.ENGINE_NOT_READY, f"the engine of {name} ended and is being restarted", retry_after_s=5.0
            ) from None
        except ComputationFailed as error:
            raise RuntimeError(f"engine {engine.pid}: {error}") from error  # a fault of ours: answered INTERNAL
        finally:
            live.running -= 1
            if not live.running:
                live.idle.set()

    async def _keep(self, live: _Live) -> None:
        """Loads a deployment and keeps it loaded until it is removed."""
        deployment = live.deployment
        with context.background("inference.loader"):
            try:
                while True:
                    engine = await self._load_patiently(live)
                    await engine.lost.wait()
                    live.engine = None
                    await self._become(live, DeploymentState.LOADING)
            except _Unfit as error:
                failure = error.failure
                _log.warning("a deployment cannot be served", name=str(deployment.name), why=failure.message)
            except Exception:  # noqa: BLE001 - a fault of ours must not leave it LOADING for ever without a word
                _log.error("a deployment met a fault of the service", name=str(deployment.name), exc_info=True)
                message = "The service met a fault of its own while it loaded the model; its log has it."
                failure = _failure(Reason.INTERNAL, message, TABLE[Reason.INTERNAL].cure, "infrastructure")
            await self._pool.release(deployment.base.digest, deployment.name)
            await self._become(live, DeploymentState.FAILED, failure=failure)

    async def _load_patiently(self, live: _Live) -> Engine:
        """Loads a deployment, over as many tries as it takes while the registry is away.

        Raises:
            _Unfit: it cannot be served.
        """
        crashes, wait_s = 0, _FIRST_WAIT_S
        while True:
            try:
                return await self._load(live)
            except TuneforgeError as error:
                if TABLE[Reason(error.reason)].retry_after_s is None:
                    raise _Unfit(_failure(error.reason, error.message, error.cure, "infrastructure")) from error
            except EngineLost:
                crashes += 1
                if crashes >= _LOAD_CRASHES:
                    message = f"The engine ended {crashes} times while it loaded the model."
                    cure = "See the service's log; a model larger than the memory ends it like this."
                    raise _Unfit(_failure(Reason.OUT_OF_MEMORY, message, cure, "infrastructure")) from None
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _load(self, live: _Live) -> Engine:
        deployment = live.deployment
        folders = [await self._fetch(layer) for layer in deployment.layers]
        engine = await self._pool.engine(deployment.base.digest, deployment.name, deployment.adapters)
        orders = [_layer_order(layer, folder) for layer, folder in zip(deployment.layers, folders, strict=True)]
        try:
            template_sha256 = await engine.load(orders)
        except LoadRefused as error:
            why = error.why
            for layer in deployment.layers:
                if layer.digest == why.damaged_digest:
                    await asyncio.to_thread(discard, layer.manifest, self._files.cache)
            is_user = why.reason == Reason.INVALID_MODEL
            cure = why.cure or TABLE[Reason(why.reason)].cure
            failure = _failure(why.reason, why.message, cure, "user" if is_user else "infrastructure", file=why.file)
            raise _Unfit(failure) from None
        live.deployment = live.deployment.with_state(DeploymentState.READY, template_sha256=template_sha256)
        live.engine = engine
        await self._become(live, DeploymentState.READY)
        return engine

    async def _fetch(self, layer: Layer) -> Path:
        try:
            return await asyncio.to_thread(self._files.fetch, layer)
        except SignatureError as error:
            message = f"The files of {layer.version} are not what the registry signed: {error}."
            cure = TABLE[Reason.SIGNATURE].cure
            failure = _failure(Reason.SIGNATURE, message, cure, "infrastructure", version=layer.version)
            raise _Unfit(failure) from error
        except IntegrityError as error:
            message = f"A file of {layer.version} arrived damaged: {error}."
            cure = TABLE[Reason.BLOB_DAMAGED if isinstance(error, StoredDamage) else Reason.INTEGRITY].cure
            raise _Unfit(_failure(Reason.INTEGRITY, message, cure, "infrastructure", file=error.path)) from error
        except OSError as error:
            is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            reason = Reason.DISK_FULL if is_full else Reason.INTERNAL
            message = f"The files of {layer.version} cannot be stored: {error.strerror}."
            cure = "Free space or repair the disk, then make the deployment again."
            raise _Unfit(_failure(reason, message, cure, "infrastructure")) from error

    async def _become(self, live: _Live, state: DeploymentState, failure: Failure | None = None) -> None:
        live.deployment = deployment = live.deployment.with_state(state, failure=failure)
        await self._database.write(lambda connection: store.update(connection, deployment))

    async def _leave(self, live: _Live) -> None:
        await live.idle.wait()
        if live.task is not None:
            live.task.cancel()
            await asyncio.gather(live.task, return_exceptions=True)
        await self._pool.release(live.deployment.base.digest, live.deployment.name)


def _not_ready(deployment: Deployment) -> ServiceError:
    if deployment.failure is not None:
        return ServiceError(
            Reason.WRONG_STATE,
            f"{deployment.name} could not be loaded: {deployment.failure.message} {deployment.failure.cure}",
            metadata={"name": str(deployment.name), "state": deployment.state},
        )
    message = f"{deployment.name} is loading"
    return ServiceError(Reason.ENGINE_NOT_READY, message, metadata={"name": str(deployment.name)}, retry_after_s=1.0)


def _deadline() -> float | None:
    """Returns when to stop waiting, in the loop's time: a little before the caller stops."""
    remaining = context.current().remaining_s()
    return None if remaining is None else asyncio.get_running_loop().time() + max(0.0, remaining - _MARGIN_S)


def _order(deployment: Deployment, request: GenerationRequest, violations: list[FieldViolation]) -> Message:
    """Returns the engine's order for a request; with violations it only adds those that the tokenizer finds."""
    prompts: list[Message | None] = []
    for index, prompt in enumerate(request.prompts[:MAX_PROMPTS]):
        if prompt is None or any(violation.field.startswith(f"prompts[{index}]") for violation in violations):
            prompts.append(None)
        elif isinstance(prompt, str):
            prompts.append({"text": prompt})
        else:
            prompts.append({"messages": [[turn.role, turn.content] for turn in prompt]})
    is_sound = not any(violation.field == "max_new_tokens" for violation in violations)
    return {
        "adapters": list(deployment.adapters),
        "prompts": prompts or [None],
        "max_new_tokens": request.max_new_tokens if is_sound else 0,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.drawn_seed(),
        "stop": list(request.stop),
        "violations": [[violation.field, violation.description] for violation in violations],
    }


def _layer_order(layer: Layer, folder: Path) -> Message:
    return {
        "folder": str(folder),
        "files": [[file.path, file.sha256, file.size_bytes] for file in layer.manifest.files],
        "kind": layer.kind,
        "version": layer.version,
    }


def _failure(reason: str, message: str, cure: str, fault: str, **metadata: str) -> Failure:
    return Failure(
        reason=str(reason),
        message=message,
        cure=cure,
        fault="user" if fault == "user" else "infrastructure",
        metadata={key: value for key, value in metadata.items() if value},
    )
