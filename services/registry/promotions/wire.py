"""Promotions to messages."""

from collections.abc import Iterable

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.promotions.resources import Promotion, PromotionChange, PromotionState
from services.registry.promotions.store import name_of
from services.registry.wire import timestamp
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.names import ModelVersionName
from tuneforge.v1 import models_pb2
from tuneforge.v1 import promotions_pb2 as pb

_PREFIX = "PROMOTION_STATE_"


def manifest_of_record(record: bytes) -> Manifest:
    """Reads the manifest in what is stored of a model version."""
    files = models_pb2.ModelVersion.FromString(record).manifest.files
    return Manifest.of(ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in files)


def states_of(numbers: Iterable[int]) -> list[PromotionState]:
    """Converts the states of a request.

    Raises:
        ServiceError: `INVALID_FIELD`: one is none.
    """
    names: dict[int, str] = {number: name for name, number in pb.PromotionState.items() if number}
    asked = list(numbers)
    violations = [
        FieldViolation(f"states[{place}]", f"is {number}, which is no state of a promotion")
        for place, number in enumerate(asked)
        if number not in names
    ]
    if violations:
        raise invalid_fields(violations)
    return [PromotionState(names[number].removeprefix(_PREFIX)) for number in asked]


def promotion_to_proto(promotion: Promotion, changes: Iterable[PromotionChange] = ()) -> pb.Promotion:
    """Converts a promotion to its message."""
    return pb.Promotion(
        name=str(name_of(promotion.version)),
        version=str(promotion.version),
        path=promotion.path,
        destination=promotion.destination,
        state=_state(promotion.state),
        patterns=promotion.patterns,
        num_files=promotion.num_files,
        size_bytes=promotion.size_bytes,
        digest=promotion.digest,
        message=promotion.message,
        actor=promotion.actor,
        create_time=timestamp(promotion.create_time_us),
        update_time=timestamp(promotion.update_time_us),
        changes=(
            pb.PromotionChange(
                sequence=change.sequence,
                state=_state(change.state),
                actor=change.actor,
                reason=change.reason,
                message=change.message,
                time=timestamp(change.time_us),
            )
            for change in changes
        ),
    )


def never_promoted(version: ModelVersionName) -> pb.Promotion:
    """Returns the message of a version that was never promoted."""
    return pb.Promotion(name=str(name_of(version)), version=str(version), state=pb.PROMOTION_STATE_NOT_PROMOTED)


def _state(state: PromotionState) -> pb.PromotionState.ValueType:
    return pb.PromotionState.Value(_PREFIX + state.value)
