"""Fields of requests about blobs."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.blobs.home import CHUNK_BYTES, LARGEST_BLOB_BYTES
from tuneforge.names import InvalidName, UploadName


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


def check_chunk(data: bytes) -> None:
    """Refuses a piece of an upload that is too large.

    Raises:
        ServiceError: `INVALID_FIELD`.
    """
    if len(data) > CHUNK_BYTES:
        raise invalid_fields([FieldViolation("data", f"has {len(data)} bytes; send at most {CHUNK_BYTES} at once")])
