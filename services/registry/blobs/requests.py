"""Fields of requests about blobs."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.blobs.home import CHUNK_BYTES, LARGEST_BLOB_BYTES
from tuneforge.names import InvalidName, UploadName, is_digest
from tuneforge.v1.blobs_pb2 import UploadBlobRequest


def check_blob_size(size_bytes: int) -> None:
    """Refuses a size that no blob has.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if not 0 <= size_bytes <= LARGEST_BLOB_BYTES:
        raise invalid_fields([FieldViolation("size_bytes", f"is {size_bytes}; give 0 to {LARGEST_BLOB_BYTES}")])


def upload_of(upload: str, size_bytes: int, offset: int) -> UploadName:
    """Returns the upload that the first message of a stream names.

    Raises:
        ServiceError: `INVALID_FIELD` with all fields that are missing or out of range.
    """
    violations = []
    name = None
    try:
        name = UploadName.parse(upload)
    except InvalidName as error:
        violations.append(FieldViolation("upload", str(error) if upload else "is not set in the first message"))
    if not 0 <= size_bytes <= LARGEST_BLOB_BYTES:
        violations.append(FieldViolation("size_bytes", f"is {size_bytes}; give 0 to {LARGEST_BLOB_BYTES}"))
    elif not 0 <= offset <= size_bytes:
        violations.append(FieldViolation("offset", f"is {offset}; give 0 to the size of {size_bytes}"))
    if violations or name is None:
        raise invalid_fields(violations)
    return name


def check_chunk(message: UploadBlobRequest, sha256: str) -> None:
    """Refuses a piece of an upload that is too large, or names another digest than was named.

    Args:
        message: The piece.
        sha256: The digest that was named before; empty: none was.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    violations = []
    if len(message.data) > CHUNK_BYTES:
        problem = f"has {len(message.data)} bytes; send at most {CHUNK_BYTES} at once"
        violations.append(FieldViolation("data", problem))
    if message.sha256 and not is_digest(message.sha256):
        violations.append(FieldViolation("sha256", "is not 64 lower-case hexadecimal digits"))
    elif message.sha256 and sha256 not in {"", message.sha256}:
        violations.append(FieldViolation("sha256", f"is {message.sha256}, and was {sha256} before; give it once"))
    if violations:
        raise invalid_fields(violations)
