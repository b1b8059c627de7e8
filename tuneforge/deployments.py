"""Deployments: model versions that answer, and the completions they give."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, overload

import grpc

from tuneforge import _short_names as names
from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import Backoff, is_retriable, new_request_id, typed_error
from tuneforge.errors import DeadlineExceeded, InvalidArgument, Reason, TuneforgeError
from tuneforge.v1 import inference_pb2 as pb
from tuneforge.values import Failure, VersionRef, Word

_POLL_S = 0.25
_GENERATE_DEADLINE_S = 300.0


class DeploymentState(Word):
    """States of a deployment."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    FAILED = "FAILED"


class FinishReason(Word):
    """Why a completion ended."""

    UNKNOWN = "UNKNOWN"
    STOP = "STOP"
    """The model ended it, or a stop text came."""
    LENGTH = "LENGTH"
    """It reached `max_new_tokens`."""


class DeploymentFailed(TuneforgeError):
    """The deployment could not be loaded; message and cure are its failure's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Which bytes an answer comes from."""

    version: VersionRef
    base: VersionRef | None
    """The base under it when it is an adapter."""
    template_sha256: str
    """Digest of the chat template that the prompts went through; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A version that is being served."""

    name: str
    """`projects/{project}/deployments/{deployment}`."""
    model: str
    """The version or alias that was asked for."""
    state: DeploymentState
    served: ServedModel | None
    """Set when the bytes are known."""
    failure: Failure | None
    create_time: datetime
    creator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One turn of a conversation."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How completions are made."""

    max_new_tokens: int = 0
    """Most tokens for each prompt, 1 to 4096. 0: 128."""
    temperature: float | None = None
    """0 = always the likeliest token, up to 2. None: 0."""
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability, (0, 1]. None: 1."""
    seed: int | None = None
    """Of the sampling. None: a new one for each call."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion, at most 8; they are not part of it."""
    timeout_s: float = _GENERATE_DEADLINE_S
    """Deadline of the whole call in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionPiece:
    """The next piece of one completion, as it is made."""

    prompt_index: int
    """Which prompt it belongs to, from 0."""
    text: str
    finish_reason: FinishReason | None
    """Set in the completion's last piece."""
    prompt_tokens: int
    """Set in the completion's last piece."""
    completion_tokens: int
    """Tokens made so far for this prompt."""
    served: ServedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole completion of one prompt."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    served: ServedModel
    """Which bytes it comes from."""


Message = ChatMessage | Mapping[str, str]
"""A turn: a `ChatMessage`, or a mapping with `role` and `content`."""


class Deployments:
    """Deployments of one project; `client.deployments`."""

    def __init__(self, connections: Connections, project: str) -> None:
        self._connections = connections
        self._project = project

    def create(self, deployment_id: str, model: str, *, wait: bool = True, timeout_s: float = 600.0) -> Deployment:
        """Begins to serve a version.

        Args:
            deployment_id: 1 to 63 of `a-z 0-9 -`, beginning with a letter.
            model: `id/3`, `id@alias`, `id` (the newest version) or a whole name.
            wait: Return only when it answers; else at once, with state LOADING.
            timeout_s: How long to wait, in seconds.

        Raises:
            DeploymentFailed: It could not be loaded.
            DeadlineExceeded: It was not ready in time; it goes on loading.
            AlreadyExists: There is one with this id.
        """
        parent, _, short = names.deployment(self._project, deployment_id).partition("/deployments/")
        request = pb.CreateDeploymentRequest(
            parent=parent,
            deployment_id=short,
            deployment=pb.Deployment(model=self._version(model)),
            request_id=new_request_id(),
        )
        inference = self._connections.inference
        deployment = _deployment(inference.call(inference.stub.CreateDeployment, request))
        return self.wait(deployment.name, timeout_s=timeout_s) if wait else deployment

    def wait(self, deployment: str, *, timeout_s: float = 600.0) -> Deployment:
        """Waits until a deployment answers; errors as for `create`."""
        give_up_at = time.monotonic() + timeout_s
        while (found := self.get(deployment)).state is not DeploymentState.READY:
            if found.state is DeploymentState.FAILED:
                failure = found.failure
                raise DeploymentFailed(
                    failure.reason if failure else Reason.INTERNAL,
                    f"{found.name} could not be loaded: {failure.message if failure else 'it does not say why'}",
                    cure=failure.cure if failure else None,
                )
            if time.monotonic() + _POLL_S > give_up_at:
                message = f"{found.name} is not ready after {timeout_s:g} s"
                raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, message, cure="Wait longer: it goes on loading.")
            time.sleep(_POLL_S)
        return found

    def get(self, deployment: str) -> Deployment:
        """Returns a deployment by id or name."""
        inference = self._connections.inference
        request = pb.GetDeploymentRequest(name=names.deployment(self._project, deployment))
        return _deployment(inference.call(inference.stub.GetDeployment, request))

    def list(self) -> Iterator[Deployment]:
        """Yields the project's deployments by id."""
        inference = self._connections.inference
        request = pb.ListDeploymentsRequest(parent=names.parent(self._project))
        for page in inference.pages(inference.stub.ListDeployments, request):
            yield from map(_deployment, page.deployments)

    def delete(self, deployment: str) -> None:
        """Deletes a deployment by id or name; running requests are finished first."""
        inference = self._connections.inference
        name = names.deployment(self._project, deployment)
        request = pb.DeleteDeploymentRequest(name=name, request_id=new_request_id())
        inference.call(inference.stub.DeleteDeployment, request)

    @overload
    def generate(
        self,
        deployment: str,
        prompts: str | Sequence[str] = (),
        *,
        messages: Sequence[Message] = (),
        conversations: Sequence[Sequence[Message]] = (),
        options: GenerationOptions | None = None,
        stream: Literal[False] = False,
    ) -> tuple[Completion, ...]: ...

    @overload
    def generate(
        self,
        deployment: str,
        prompts: str | Sequence[str] = (),
        *,
        messages: Sequence[Message] = (),
        conversations: Sequence[Sequence[Message]] = (),
        options: GenerationOptions | None = None,
        stream: Literal[True],
    ) -> Iterator[CompletionPiece]: ...

    def generate(
        self,
        deployment: str,
        prompts: str | Sequence[str] = (),
        *,
        messages: Sequence[Message] = (),
        conversations: Sequence[Sequence[Message]] = (),
        options: GenerationOptions | None = None,
        stream: bool = False,
    ) -> tuple[Completion, ...] | Iterator[CompletionPiece]:
        """Completes prompts as they stand, or conversations through the model's chat template.

        Args:
            deployment: Id or name.
            prompts: A text, or up to 64 that are computed as one batch.
            messages: A conversation instead, its last turn not the assistant's.
            conversations: Up to 64 conversations instead, computed as one batch.
            options: Length, sampling and deadline.
            stream: Return an iterator of pieces as they are made, else a completion for each prompt, in order.

        Raises:
            InvalidArgument: Not exactly one of `prompts`, `messages` and `conversations` is given, or the service
                refuses a field.
            FailedPrecondition: The deployment failed to load.
            Unavailable: It is still loading.
        """
        asked = _prompts(prompts, [*conversations, messages] if messages else conversations)
        pieces = self._stream(_request(names.deployment(self._project, deployment), asked, options), options)
        return pieces if stream else _gather(pieces, len(asked))

    def _stream(self, request: pb.GenerateRequest, options: GenerationOptions | None) -> Iterator[CompletionPiece]:
        """Yields pieces; begins again after UNAVAILABLE only while none has come."""
        inference = self._connections.inference
        timeout_s = (options or GenerationOptions()).timeout_s
        backoff = Backoff(inference.retry)
        while True:
            answered = False
            call = inference.stub.Generate(request, timeout=timeout_s)
            try:
                for message in call:
                    answered = True
                    yield _piece(message)
            except grpc.RpcError as error:
                typed = typed_error(error, inference.peer)
                if answered or not is_retriable(error):
                    raise typed from None
            else:
                return
            finally:
                call.cancel()  # stops it when the reader leaves early
            backoff.wait_or_raise(typed)

    def _version(self, model: str) -> str:
        """Returns a version's or an alias' name; the newest version is looked up, for a deployment names one."""
        name = names.model_version(self._project, model)
        if not name.endswith("/versions/latest"):
            return name
        from tuneforge.v1.models_pb2 import GetModelVersionRequest

        registry = self._connections.registry
        return registry.call(registry.stub.GetModelVersion, GetModelVersionRequest(name=name)).name


def _prompts(prompts: str | Sequence[str], conversations: Sequence[Sequence[Message]]) -> list[pb.Prompt]:
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if bool(texts) == bool(conversations):
        message = "both prompts and messages are given" if texts else "neither prompts nor messages are given"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Give one of them.")
    return [pb.Prompt(text=text) for text in texts] or [
        pb.Prompt(conversation=_conversation(messages)) for messages in conversations
    ]


def _request(name: str, prompts: Sequence[pb.Prompt], options: GenerationOptions | None) -> pb.GenerateRequest:
    options = options or GenerationOptions()
    return pb.GenerateRequest(
        name=name,
        prompts=prompts,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stop=options.stop,
    )


def _conversation(messages: Sequence[Message]) -> pb.Conversation:
    turns = []
    for index, message in enumerate(messages):
        if isinstance(message, ChatMessage):
            turns.append(pb.ChatMessage(role=message.role, content=message.content))
        elif set(message) == {"role", "content"}:
            turns.append(pb.ChatMessage(role=message["role"], content=message["content"]))
        else:
            text = f"messages[{index}] has the keys {sorted(message)}"
            raise InvalidArgument(Reason.INVALID_FIELD, text, cure="Give `role` and `content`.")
    return pb.Conversation(messages=turns)


def _gather(pieces: Iterator[CompletionPiece], count: int) -> tuple[Completion, ...]:
    """Joins the pieces of each prompt."""
    texts = [""] * count
    last: dict[int, CompletionPiece] = {}
    for piece in pieces:
        texts[piece.prompt_index] += piece.text
        last[piece.prompt_index] = piece
    return tuple(
        Completion(
            text=texts[index],
            finish_reason=last[index].finish_reason or FinishReason.UNKNOWN,
            prompt_tokens=last[index].prompt_tokens,
            completion_tokens=last[index].completion_tokens,
            served=last[index].served,
        )
        for index in range(count)
    )


def _piece(message: pb.GenerateResponse) -> CompletionPiece:
    reason = _wire.word(FinishReason, pb.FinishReason.DESCRIPTOR, message.finish_reason)
    return CompletionPiece(
        prompt_index=message.prompt_index,
        text=message.text,
        finish_reason=reason if message.finish_reason else None,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        served=_served(message.served),
    )


def _served(message: pb.ServedModel) -> ServedModel:
    return ServedModel(
        version=VersionRef(version=message.version.version, digest=message.version.digest),
        base=_wire.version_ref(message.base),
        template_sha256=message.template_sha256,
    )


def _deployment(message: pb.Deployment) -> Deployment:
    return Deployment(
        name=message.name,
        model=message.model,
        state=_wire.word(DeploymentState, pb.DeploymentState.DESCRIPTOR, message.state),
        served=_served(message.served) if message.HasField("served") else None,
        failure=_wire.failure(message.failure),
        create_time=_wire.instant(message.create_time),
        creator=message.creator,
    )
