"""Fields of requests that a name's form or a message's type does not check: ids, lengths, aliases, transfers."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.blob_files import CHUNK_BYTES, LARGEST_BLOB_BYTES
from services.registry.resources import LONGEST_DESCRIPTION, LONGEST_REASON
from tuneforge.names import ID_FORM, AliasName, InvalidName, ModelName, ModelVersionName, UploadName, is_id


def check_new_collection(kind: str, collection_id: str, description: str) -> None:
    """Refuses a malformed id or a description that is too long.

    Args:
        kind: `dataset` or `model`, as the fields are named.
        collection_id: As sent.
        description: As sent.

    Raises:
        ServiceError: `INVALID_FIELD` with both.
    """
    violations = []
    if not is_id(collection_id):
        violations.append(FieldViolation(f"{kind}_id", f"is {collection_id[:80]!r}; give {ID_FORM}"))
    if len(description) > LONGEST_DESCRIPTION:
        problem = f"has {len(description)} characters; at most {LONGEST_DESCRIPTION} are taken"
        violations.append(FieldViolation(f"{kind}.description", problem))
    if violations:
        raise invalid_fields(violations)


def alias_and_version(name: str, version: str, reason: str) -> tuple[AliasName, int]:
    """Returns the alias that is to be moved and the number of the version that it is to point to.

    Raises:
        InvalidName: `name` is not one of an alias at all.
        ServiceError: `INVALID_FIELD`: the alias id is malformed, the version is not of the same model, or the reason is
            too long.
    """
    violations = []
    parent, _, alias_id = name.rpartition("/aliases/")
    if not parent or "/" in alias_id:
        raise InvalidName(name, AliasName.pattern)
    model = ModelName.parse(parent)
    if not is_id(alias_id):
        violations.append(FieldViolation("name", f"has the alias id {alias_id[:80]!r}; give {ID_FORM}"))
    number = 0
    try:
        version_name = ModelVersionName.parse(version)
        number = version_name.version
        if version_name.parent != model:
            violations.append(FieldViolation("version", f"is one of {version_name.parent}, but the alias of {model}"))
    except InvalidName as error:
        violations.append(FieldViolation("version", str(error)))
    if len(reason) > LONGEST_REASON:
        problem = f"has {len(reason)} characters; at most {LONGEST_REASON} are taken"
        violations.append(FieldViolation("reason", problem))
    if violations:
        raise invalid_fields(violations)
    return model.alias(alias_id), number


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
