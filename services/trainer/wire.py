"""Messages of the trainer's contract <-> dataclasses. No grpc: the worker reads its request with this."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from services.trainer.admission import ArtifactInput, CheckpointInput, StartRequest
from services.trainer.attempts import AttemptView
from services.trainer.ends import failure_to_proto
from services.trainer.node import NodeView
from services.trainer.orders import StopMode
from tuneforge import durations
from tuneforge.data.split import LARGEST_RATIO, Split
from tuneforge.errors import FieldViolation
from tuneforge.manifest import InvalidManifest, Manifest, ManifestFile
from tuneforge.names import AttemptName, CheckpointName, InvalidName
from tuneforge.signatures import Signature
from tuneforge.specs.wire import spec_from_proto, unknown_enums
from tuneforge.v1 import events_pb2, nodes_pb2, trainer_pb2, types_pb2

_KINDS = {events_pb2.ARTIFACT_KIND_MODEL: "model", events_pb2.ARTIFACT_KIND_ADAPTER: "adapter"}
KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
DEFAULT_GRACE_S = 30.0
MAX_GRACE_S = 600.0


def read_start(message: trainer_pb2.StartAttemptRequest) -> StartRequest:
    """Reads a `StartAttemptRequest`; what is malformed is listed in `problems`.

    Raises:
        InvalidName: `name` is not the name of an attempt.
    """
    problems = [FieldViolation(f"spec.{path}", "is a value that is not known") for path in unknown_enums(message.spec)]
    if not message.HasField("spec"):
        problems.append(FieldViolation("spec", "is missing: say what to train"))
    base = tuple(
        _artifact(f"base[{index}]", layer, problems, kind=_KINDS.get(layer.kind, ""))
        for index, layer in enumerate(message.base)
    )
    train = _artifact("train", message.train, problems) if message.HasField("train") else None
    validation = _artifact("validation", message.validation, problems) if message.HasField("validation") else None
    checkpoints = tuple(_checkpoints(message, problems))
    if message.replay_steps and len(checkpoints) != 1:
        problems.append(FieldViolation("replay_steps", "is set: give the one checkpoint to replay from"))
    kept = trainer_pb2.StartAttemptRequest()
    kept.CopyFrom(message)
    kept.ClearField("manager_token")
    return StartRequest(
        name=AttemptName.parse(message.name),
        node_rank=message.node_rank,
        world_size=message.world_size or 1,
        rendezvous=message.rendezvous,
        token=message.token,
        manager_token=message.manager_token,
        spec=spec_from_proto(message.spec),
        base=base,
        train=train,
        validation=validation,
        checkpoints=checkpoints,
        replay_steps=message.replay_steps,
        newest_known_step=message.newest_known_step if message.HasField("newest_known_step") else None,
        rows_at_once=message.rows_at_once,
        problems=tuple(problems),
        content=kept.SerializeToString(),
    )


def _artifact(
    field: str,
    message: trainer_pb2.ModelInput | trainer_pb2.DataInput,
    problems: list[FieldViolation],
    *,
    kind: str = "",
) -> ArtifactInput:
    manifest = Manifest.of(())
    try:
        manifest = manifest_from_proto(message.manifest)
    except InvalidManifest as error:
        problems.append(FieldViolation(f"{field}.manifest", f"is malformed: {error}"))
    else:
        if not manifest.files:
            problems.append(FieldViolation(f"{field}.manifest", "has no files"))
        for name, digest in (("manifest.digest", message.manifest.digest), ("ref.digest", message.ref.digest)):
            if digest and digest != manifest.digest:
                problems.append(
                    FieldViolation(f"{field}.{name}", f"is {digest!r}, that of the files is {manifest.digest!r}")
                )
    split = None
    if isinstance(message, trainer_pb2.DataInput) and message.HasField("split"):
        split = Split(validation_ratio=message.split.validation_ratio, seed=message.split.seed)
        if not 0 <= split.validation_ratio <= LARGEST_RATIO or split.seed < 0:
            problems.append(FieldViolation(f"{field}.split", "is out of range"))
            split = None
    signature = None
    if message.HasField("signature"):
        signature = Signature(key_id=message.signature.key_id, value=message.signature.value)
    return ArtifactInput(
        version=message.ref.version,
        digest=manifest.digest,
        manifest=manifest,
        kind=kind,
        signature=signature,
        split=split,
    )


def _checkpoints(message: trainer_pb2.StartAttemptRequest, problems: list[FieldViolation]) -> Iterator[CheckpointInput]:
    for index, each in enumerate(message.checkpoints):
        field = f"checkpoints[{index}]"
        try:
            name, manifest = CheckpointName.parse(each.name), manifest_from_proto(each.manifest)
        except InvalidName as error:
            problems.append(FieldViolation(f"{field}.name", f"is not a checkpoint: {error}"))
        except InvalidManifest as error:
            problems.append(FieldViolation(f"{field}.manifest", f"is malformed: {error}"))
        else:
            if not manifest.files:
                problems.append(FieldViolation(f"{field}.manifest", "has no files"))
            yield CheckpointInput(name=str(name), step=name.step, manifest=manifest)


def manifest_from_proto(message: types_pb2.Manifest) -> Manifest:
    """Reads a manifest and computes its digest anew.

    Raises:
        InvalidManifest: A path, a digest or a size is malformed, or a path comes twice.
    """
    return Manifest.of(ManifestFile(file.path, file.sha256, file.size_bytes) for file in message.files)


def manifest_to_proto(manifest: Manifest) -> types_pb2.Manifest:
    """Returns a manifest as a message."""
    return types_pb2.Manifest(
        digest=manifest.digest,
        files=[
            types_pb2.ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
            for file in manifest.files
        ],
    )


def status_to_proto(view: AttemptView) -> nodes_pb2.AttemptStatus:
    """Returns an attempt as a message."""
    message = nodes_pb2.AttemptStatus(
        name=view.name,
        node_rank=view.node_rank,
        state=nodes_pb2.AttemptState.Value(f"ATTEMPT_STATE_{view.state.value}"),
        last_seq=view.last_seq,
        acked_seq=view.acked_seq,
        step=view.step,
        rendezvous=view.rendezvous,
        start_time=timestamp(view.accepted_at),
    )
    if view.stall is not None:
        message.stall.CopyFrom(
            events_pb2.Stall(
                attempt=AttemptName.parse(view.name).attempt,
                since=timestamp(view.stall.since),
                message=view.stall.message,
                stacks=view.stall.stacks,
            )
        )
    if view.end is not None:
        message.end_time.CopyFrom(timestamp(view.end.time))
        if view.end.failure is not None:
            message.failure.CopyFrom(failure_to_proto(view.end.failure))
    return message


def node_to_proto(node: NodeView, is_shown: Callable[[AttemptView], bool] = lambda _: True) -> nodes_pb2.Node:
    """Returns the node as a message, with those of its attempts that are to be shown."""
    return nodes_pb2.Node(
        name=node.name,
        address=node.address,
        capacity=nodes_pb2.NodeCapacity(
            devices=[
                nodes_pb2.Device(index=device.index, model=device.model, memory_bytes=device.memory_bytes)
                for device in node.capacity.devices
            ],
            cpu_millis=node.capacity.cpu_millis,
            memory_bytes=node.capacity.memory_bytes,
            slots=node.capacity.slots,
            software=node.capacity.software,
        ),
        labels=node.labels,
        state=nodes_pb2.NODE_STATE_DRAINING if node.is_draining else nodes_pb2.NODE_STATE_READY,
        is_managed=node.is_managed,
        attempts=[status_to_proto(view) for view in node.attempts if is_shown(view)],
        generation=node.generation,
        version=node.version,
    )


def read_stop(message: trainer_pb2.StopAttemptRequest) -> tuple[StopMode, float, list[FieldViolation]]:
    """Reads how an attempt is to stop: mode, grace time in seconds, and what is wrong with them."""
    problems = []
    grace_s = durations.to_seconds(message.grace) if message.HasField("grace") else DEFAULT_GRACE_S
    if not 0 <= grace_s <= MAX_GRACE_S:
        problems.append(FieldViolation("grace", f"is {grace_s:g} s: use 0 s to {MAX_GRACE_S:g} s"))
    if message.mode not in trainer_pb2.StopMode.values():
        problems.append(FieldViolation("mode", f"is {message.mode}, which this release does not know"))
    is_cancel = message.mode == trainer_pb2.STOP_MODE_CANCEL
    return StopMode.CANCEL if is_cancel else StopMode.CHECKPOINT, grace_s, problems


def timestamp(unix_s: float) -> Timestamp:
    """Returns a Unix time in seconds as a message."""
    message = Timestamp()
    message.FromNanoseconds(int(unix_s * 1e9))
    return message
