"""Parts of messages that several resources share -> plain values; each resource converts itself in its own file."""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from tuneforge.errors import FieldViolation, InvalidArgument, Reason
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.signatures import Signature
from tuneforge.v1 import signing_pb2, types_pb2
from tuneforge.values import Failure, FaultClass, VersionRef, Word

Kind = TypeVar("Kind", bound=Word)


def instant(timestamp: Timestamp) -> datetime:
    """Converts a moment, with the time zone UTC."""
    return timestamp.ToDatetime(tzinfo=UTC)


def instant_or_none(timestamp: Timestamp) -> datetime | None:
    """Converts a moment; one that is not set is None."""
    return instant(timestamp) if timestamp.seconds or timestamp.nanos else None


def word(kind: type[Kind], enum: EnumDescriptor, number: int) -> Kind:
    """Converts an enum number to its word: the name in the contract without the enum's prefix."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = enum.values_by_number.get(number)
    return kind(known.name.removeprefix(prefix) if known else "UNKNOWN")


def counted(field: str, value: int | None) -> int | None:
    """Returns a count that a message can carry.

    Raises:
        InvalidArgument: It is below 0, or more than 32 bits hold.
    """
    if value is None or 0 <= value < 1 << 32:
        return value
    problem = f"is {value}: use a whole number from 0 to {(1 << 32) - 1}"
    violation = FieldViolation(field, problem)
    raise InvalidArgument(
        Reason.INVALID_FIELD, f"{field}: {problem}", cure="Correct the fields that are named.", fields=[violation]
    )


def frozen(values: Mapping[str, str]) -> Mapping[str, str]:
    """Copies a map field into a mapping that cannot be changed."""
    return MappingProxyType(dict(values))


def version_ref(message: types_pb2.VersionRef) -> VersionRef | None:
    """Converts a reference; one that is not set is None."""
    return VersionRef(version=message.version, digest=message.digest) if message.version else None


def failure(message: types_pb2.Failure) -> Failure | None:
    """Converts a failure; one that is not set is None."""
    if not message.reason and not message.message:
        return None
    return Failure(
        reason=Reason.from_number(message.reason),
        message=message.message,
        cure=message.cure,
        fault=word(FaultClass, types_pb2.FaultClass.DESCRIPTOR, message.fault),
        metadata=frozen(message.metadata),
    )


def manifest(message: types_pb2.Manifest) -> Manifest:
    """Converts a manifest."""
    files = (ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in message.files)
    return Manifest(files=tuple(files), digest=message.digest)


def manifest_to_proto(value: Manifest) -> types_pb2.Manifest:
    """Converts a manifest to its message."""
    files = (
        types_pb2.ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in value.files
    )
    return types_pb2.Manifest(files=files, digest=value.digest)


def signature(message: signing_pb2.Signature) -> Signature:
    """Converts a signature."""
    return Signature(key_id=message.key_id, value=message.value)
