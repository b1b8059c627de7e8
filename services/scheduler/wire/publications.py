"""What the registry is told when a job has a result, and what a node is told when an attempt begins."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.records import Attempt, Checkpoint, Job, Ref
from services.scheduler.wire.specs import resolved_of, spec_of_run
from tuneforge.names import CheckpointName
from tuneforge.v1 import events_pb2, jobs_pb2, models_pb2, signing_pb2, trainer_pb2, types_pb2

_CHECKPOINTS_OFFERED = 8
"""Checkpoints that a node is told of: one after the other they can hardly all be damaged."""


def publish_request(job: Job, attempt: Attempt) -> bytes:
    """Returns the serialised `PublishVersionRequest` for a job whose attempt has succeeded."""
    outcome = events_pb2.AttemptOutcome.FromString(attempt.outcome or b"")
    resolved = resolved_of(job)
    lineage = models_pb2.Lineage(
        base=_ref(job.base),
        dataset=_ref(job.train),
        validation=_ref(job.validation),
        job=str(job.name),
        attempt=attempt.name.attempt,
        spec=spec_of_run(job),
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


def readable_request(payload: bytes) -> models_pb2.PublishVersionRequest:
    """Returns a publication as it is stored.

    Raises:
        DecodeError: it is damaged.
    """
    return models_pb2.PublishVersionRequest.FromString(payload)


def start_request(
    job: Job, attempt: Attempt, known: Sequence[Checkpoint], manager_token: str
) -> trainer_pb2.StartAttemptRequest:
    """Returns what starts an attempt; a job that ran before goes on with the spec that its first attempt resolved.

    Args:
        job: Its job.
        attempt: The attempt.
        known: The job's checkpoints, newest first; those in the blob store are offered.
        manager_token: The secret of the node.
    """
    request = trainer_pb2.StartAttemptRequest.FromString(job.inputs or b"")
    request.name = str(attempt.name)
    request.token = attempt.wire_token
    request.spec.CopyFrom(spec_of_run(job))
    request.node_rank = attempt.node_rank
    request.world_size = attempt.nodes
    request.manager_token = manager_token
    if attempt.node_rank:
        request.rendezvous = attempt.rendezvous
    else:  # rank 0 sends the others what they need of a checkpoint
        durable = [checkpoint for checkpoint in known if checkpoint.manifest is not None]
        best = [checkpoint for checkpoint in durable[_CHECKPOINTS_OFFERED:] if checkpoint.is_best]
        for checkpoint in durable[:_CHECKPOINTS_OFFERED] + best:
            manifest = types_pb2.Manifest.FromString(checkpoint.manifest or b"")
            request.checkpoints.add(name=str(job.name.checkpoint(checkpoint.step)), manifest=manifest)
    if job.origin is not None:
        manifest = types_pb2.Manifest.FromString(job.origin.manifest)
        request.checkpoints.add(name=job.origin.name, manifest=manifest)
        if job.origin.best is not None:
            lowest = types_pb2.Manifest.FromString(job.origin.best)
            request.checkpoints.add(name=job.origin.best_name, manifest=lowest)
    request.newest_known_step = max([checkpoint.step for checkpoint in known] + _origin_step(job), default=0)
    request.rows_at_once = attempt.rows_at_once
    if job.verifies is not None:
        request.replay_steps = jobs_pb2.ResumeVerification.FromString(job.verifies).num_steps
    return request


def _origin_step(job: Job) -> list[int]:
    return [] if job.origin is None else [CheckpointName.parse(job.origin.name).step]


def _ref(ref: Ref | None) -> types_pb2.VersionRef | None:
    return None if ref is None else types_pb2.VersionRef(version=ref.version, digest=ref.digest)
