"""Training specs as they are stored."""

from __future__ import annotations

import hashlib

from services.scheduler.records import Job
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto, spec_to_proto
from tuneforge.v1 import events_pb2, spec_pb2


def spec_bytes(spec: TrainingSpec) -> bytes:
    """Returns a spec as it is stored."""
    return spec_to_proto(spec).SerializeToString(deterministic=True)


def spec_bytes_into(stored: bytes, model: str) -> bytes:
    """Returns a stored spec with the model that its result goes into."""
    message = spec_pb2.TrainingSpec.FromString(stored)
    message.output.model = model
    return message.SerializeToString(deterministic=True)


def spec_from_bytes(stored: bytes) -> TrainingSpec:
    """Returns a spec that was stored."""
    return spec_from_proto(spec_pb2.TrainingSpec.FromString(stored))


def resolved_of(job: Job) -> events_pb2.Resolved | None:
    """Returns what the first attempt of a job has resolved; None before."""
    if job.resolved is None:
        return None
    resolved = events_pb2.Resolved.FromString(job.resolved)
    return resolved if resolved.HasField("spec") else None


def spec_of_run(job: Job) -> spec_pb2.TrainingSpec:
    """Returns the spec that a job's attempts start with: as its first attempt resolved it, if there was one."""
    resolved = resolved_of(job)
    return resolved.spec if resolved is not None else spec_pb2.TrainingSpec.FromString(job.spec)


def rows_at_once(job: Job) -> int:
    """Returns how many rows a job's next attempt computes at once; 0: its spec fixes that, or it is not known yet."""
    resolved = resolved_of(job)
    wish = spec_pb2.TrainingSpec.FromString(job.spec).optimization.rows_per_micro_batch
    if wish or resolved is None or job.verifies is not None:
        return 0
    return job.rows_at_once or resolved.spec.optimization.rows_per_micro_batch


def spec_digest(stored: bytes) -> str:
    """Returns a digest of what is trained, by which a simulated job is known again; `output` is left out."""
    spec = spec_pb2.TrainingSpec.FromString(stored)
    spec.ClearField("output")
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()
