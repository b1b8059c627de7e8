"""Fields of requests about aliases."""

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.aliases.resources import LONGEST_REASON
from tuneforge.names import ID_FORM, AliasName, InvalidName, ModelName, ModelVersionName, is_id


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
