"""Parts of messages that several resources share <-> plain values."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.registry import manifests
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.v1 import types_pb2


def timestamp(time_us: int) -> Timestamp:
    """Converts microseconds since 1970."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def manifest_of_request(message: types_pb2.Manifest) -> Manifest:
    """Converts the manifest of a request.

    Raises:
        ServiceError: `INVALID_FIELD` with all malformed entries, `DIGEST_MISMATCH`.
    """
    files = [ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes) for file in message.files]
    return manifests.checked(files, message.digest)


def manifest_to_proto(manifest: Manifest) -> types_pb2.Manifest:
    """Converts a manifest to its message."""
    files = (
        types_pb2.ManifestFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
        for file in manifest.files
    )
    return types_pb2.Manifest(files=files, digest=manifest.digest)
