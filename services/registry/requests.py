"""Fields of requests that a name's form or a message's type does not check, where several resources share them."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.collections import LONGEST_DESCRIPTION
from tuneforge.names import ID_FORM, is_id


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
