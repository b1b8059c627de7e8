"""What a sweep's spec says and allows, asked of the spec's own rules."""

from __future__ import annotations

from services.scheduler.sweeps.checking import SpecRules
from services.scheduler.sweeps.space import Point
from services.scheduler.wire.spec_fields import find_field, with_values
from tuneforge.specs.architecture import Architecture
from tuneforge.specs.validation import validate
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import spec_pb2


def rules_of(message: spec_pb2.TrainingSpec, architecture: Architecture | None) -> SpecRules:
    """Returns the rules of a spec.

    Args:
        message: What all trials have in common.
        architecture: Of its base, when it is known.
    """
    spec = spec_from_proto(message)
    own = {(each.field, each.description) for each in validate(spec, architecture)}

    def problems_with(point: Point) -> dict[str, str]:
        changed = validate(spec_from_proto(with_values(message, point)), architecture)
        return {each.field: each.description for each in changed if (each.field, each.description) not in own}

    return SpecRules(spec=spec, find=lambda path: find_field(path, message), problems_with=problems_with)
