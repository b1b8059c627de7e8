"""Messages of the contract to and from the service's dataclasses."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.inference.deployments import Deployment, DeploymentState, Failure, Layer
from services.inference.engines import Piece
from services.inference.generation import GenerationRequest
from tuneforge.data.rows import Turn
from tuneforge.errors import Reason
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.v1 import inference_pb2, types_pb2

_STATES = {
    DeploymentState.LOADING: inference_pb2.DEPLOYMENT_STATE_LOADING,
    DeploymentState.READY: inference_pb2.DEPLOYMENT_STATE_READY,
    DeploymentState.FAILED: inference_pb2.DEPLOYMENT_STATE_FAILED,
}
_FINISHES = {
    "": inference_pb2.FINISH_REASON_UNSPECIFIED,
    "stop": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}


def manifest_from(message: types_pb2.Manifest) -> Manifest:
    """Reads a manifest; its digest is computed, so a wrong one shows where digests are compared.

    Raises:
        InvalidManifest: a path or digest in it is malformed.
    """
    return Manifest.of(
        ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in message.files
    )


def deployment_to(deployment: Deployment) -> inference_pb2.Deployment:
    """Writes a deployment."""
    created = Timestamp()
    created.FromMicroseconds(deployment.create_time_us)
    return inference_pb2.Deployment(
        name=str(deployment.name),
        model=deployment.model,
        state=_STATES[deployment.state],
        served=served_to(deployment),
        failure=_failure_to(deployment.failure) if deployment.failure else None,
        create_time=created,
        creator=deployment.creator,
    )


def served_to(deployment: Deployment) -> inference_pb2.ServedModel:
    """Writes which bytes a deployment's answers come from."""
    base, top = deployment.layers[0], deployment.layers[-1]
    return inference_pb2.ServedModel(
        version=_reference(top),
        base=_reference(base) if top is not base else None,
        template_sha256=deployment.template_sha256,
    )


def request_from(message: inference_pb2.GenerateRequest) -> GenerationRequest:
    """Reads a request to generate; what is wrong with it is said by `generation.check`."""
    return GenerationRequest(
        prompts=[_prompt_from(prompt) for prompt in message.prompts],
        max_new_tokens=message.max_new_tokens,
        temperature=message.temperature if message.HasField("temperature") else 0.0,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        seed=message.seed if message.HasField("seed") else None,
        stop=list(message.stop),
    )


def piece_to(piece: Piece, served: inference_pb2.ServedModel) -> inference_pb2.GenerateResponse:
    """Writes the next piece of a completion."""
    return inference_pb2.GenerateResponse(
        prompt_index=piece.prompt_index,
        text=piece.text,
        finish_reason=_FINISHES[piece.finish],
        prompt_tokens=piece.prompt_tokens if piece.finish else 0,
        completion_tokens=piece.completion_tokens,
        served=served,
    )


def _prompt_from(prompt: inference_pb2.Prompt) -> str | tuple[Turn, ...] | None:
    if prompt.WhichOneof("input") == "text":
        return prompt.text
    if prompt.WhichOneof("input") == "conversation":
        return tuple(Turn(role=turn.role, content=turn.content) for turn in prompt.conversation.messages)
    return None


def _reference(layer: Layer) -> types_pb2.VersionRef:
    return types_pb2.VersionRef(version=layer.version, digest=layer.digest)


def _failure_to(failure: Failure) -> types_pb2.Failure:
    is_user = failure.fault == "user"
    return types_pb2.Failure(
        reason=Reason(failure.reason).number,
        message=failure.message,
        cure=failure.cure,
        fault=types_pb2.FAULT_CLASS_USER if is_user else types_pb2.FAULT_CLASS_INFRASTRUCTURE,
        metadata=dict(failure.metadata),
    )
