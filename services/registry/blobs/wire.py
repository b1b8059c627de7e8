"""Ways to blobs as messages."""

from services.registry.blobs.presigned import Access
from tuneforge.v1 import blobs_pb2


def presigned_to_proto(access: Access, *, upload: str = "") -> blobs_pb2.BlobPresigned:
    """Returns the message with the URLs for one blob.

    Args:
        access: The URLs.
        upload: Name to complete, for an upload.
    """
    message = blobs_pb2.BlobPresigned(upload=upload)
    message.expire_time.FromDatetime(access.expire_time)
    for part in access.parts:
        message.parts.add(
            number=part.number,
            offset=part.offset,
            size_bytes=part.size_bytes,
            url=part.signed.url if part.signed else "",
            headers=part.signed.headers if part.signed else None,
            is_stored=part.signed is None,
        )
    return message
