"""Training specs as they are stored."""

from __future__ import annotations

from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto, spec_to_proto
from tuneforge.v1 import spec_pb2


def spec_bytes(spec: TrainingSpec) -> bytes:
    """Returns a spec as it is stored."""
    return spec_to_proto(spec).SerializeToString(deterministic=True)


def spec_from_bytes(stored: bytes) -> TrainingSpec:
    """Returns a spec that was stored."""
    return spec_from_proto(spec_pb2.TrainingSpec.FromString(stored))
