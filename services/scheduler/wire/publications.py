"""What the registry is told when a job has a result, and what a node is told when an attempt begins."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.records import Attempt, Checkpoint, Job, Ref
from tuneforge.v1 import events_pb2, models_pb2, signing_pb2, spec_pb2, trainer_pb2, types_pb2


def publish_request(job: Job, attempt: Attempt) -> bytes:
    """Returns the serialised `PublishVersionRequest` for a job whose attempt has succeeded."""
    outcome = events_pb2.AttemptOutcome.FromString(attempt.outcome or b"")
    resolved = _resolved(job)
    lineage = models_pb2.Lineage(
        base=_ref(job.base),
        dataset=_ref(job.train),
        validation=_ref(job.validation),
        job=str(job.name),
        attempt=attempt.name.attempt,
        spec=resolved.spec if resolved is not None else spec_pb2.TrainingSpec.FromString(job.spec),
        environment=dict(resolved.environment) if resolved is not None else {},
        run_record=signing_pb2.RunRecord(num_events=job.latest_seq, head=job.record_head.hex()),
    )
    request = models_pb2.PublishVersionRequest(
        parent=job.output_model,
        manifest=outcome.manifest,
        kind=outcome.artifact_kind,
        lineage=lineage,
        metrics=dict(outcome.metrics),
        validation_report=outcome.validation_report if outcome.HasField("validation_report") else None,
    )
    return request.SerializeToString()


def start_request(
    job: Job, attempt: Attempt, durable: Sequence[Checkpoint], manager_token: str
) -> trainer_pb2.StartAttemptRequest:
    """Returns what starts an attempt; a job that ran before goes on with the spec that its first attempt resolved.

    Args:
        job: Its job.
        attempt: The attempt.
        durable: The job's checkpoints in the blob store, newest first.
        manager_token: The secret of the node.
    """
    request = trainer_pb2.StartAttemptRequest.FromString(job.inputs or b"")
    resolved = _resolved(job)
    request.name = str(attempt.name)
    request.token = attempt.wire_token
    request.spec.CopyFrom(resolved.spec if resolved is not None else spec_pb2.TrainingSpec.FromString(job.spec))
    request.node_rank = attempt.node_rank
    request.world_size = attempt.nodes
    request.manager_token = manager_token
    if attempt.node_rank:  # rank 0 sends it what it needs of a checkpoint
        request.rendezvous = attempt.rendezvous
        return request
    for checkpoint in durable:
        request.checkpoints.add(
            name=str(job.name.checkpoint(checkpoint.step)),
            manifest=types_pb2.Manifest.FromString(checkpoint.manifest or b""),
        )
    if job.origin is not None:
        request.checkpoints.append(trainer_pb2.CheckpointInput.FromString(job.origin))
    return request


def _resolved(job: Job) -> events_pb2.Resolved | None:
    if job.resolved is None:
        return None
    resolved = events_pb2.Resolved.FromString(job.resolved)
    return resolved if resolved.HasField("spec") else None


def _ref(ref: Ref | None) -> types_pb2.VersionRef | None:
    return None if ref is None else types_pb2.VersionRef(version=ref.version, digest=ref.digest)
