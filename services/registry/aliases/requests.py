"""Fields of requests about aliases."""

from collections.abc import Iterator

from services.grpckit.errors import FieldViolation, invalid_fields
from services.registry.aliases.resources import LONGEST_REASON
from tuneforge.names import ID_FORM, AliasName, InvalidName, ModelName, ModelVersionName, is_id


def alias_and_version(name: str, version: str, reason: str, *, is_forced: bool = False) -> tuple[AliasName, int]:
    """Returns the alias that is to be moved and the number of the version that it is to point to.

    Args:
        name: As sent.
        version: As sent.
        reason: As sent; a forced move needs one.
        is_forced: Whether gates shall not stop it.

    Raises:
        InvalidName: `name` is not one of an alias at all.
        ServiceError: `INVALID_FIELD`: the alias id is malformed, the version is not of the same model, or the reason is
            too long or missing.
    """
    model, alias_id, violations = _alias_of(name)
    number = 0
    try:
        version_name = ModelVersionName.parse(version)
        number = version_name.version
        if version_name.parent != model:
            violations.append(FieldViolation("version", f"is one of {version_name.parent}, but the alias of {model}"))
    except InvalidName as error:
        violations.append(FieldViolation("version", str(error)))
    violations += _reason_violations(reason, is_forced=is_forced)
    if violations:
        raise invalid_fields(violations)
    return model.alias(alias_id), number


def alias_and_reason(name: str, reason: str, *, is_forced: bool = False, field: str = "reason") -> AliasName:
    """Returns the alias of a request that has a reason beside its name.

    Raises:
        InvalidName: `name` is not one of an alias at all.
        ServiceError: `INVALID_FIELD`: the alias id is malformed, or the reason is too long or missing.
    """
    model, alias_id, violations = _alias_of(name)
    violations += _reason_violations(reason, is_forced=is_forced, field=field)
    if violations:
        raise invalid_fields(violations)
    return model.alias(alias_id)


def _alias_of(name: str) -> tuple[ModelName, str, list[FieldViolation]]:
    parent, _, alias_id = name.rpartition("/aliases/")
    if not parent or "/" in alias_id:
        raise InvalidName(name, AliasName.pattern)
    problem = [] if is_id(alias_id) else [FieldViolation("name", f"has the alias id {alias_id[:80]!r}; give {ID_FORM}")]
    return ModelName.parse(parent), alias_id, problem


def _reason_violations(reason: str, *, is_forced: bool, field: str = "reason") -> Iterator[FieldViolation]:
    if len(reason) > LONGEST_REASON:
        yield FieldViolation(field, f"has {len(reason)} characters; at most {LONGEST_REASON} are taken")
    if is_forced and not reason.strip():
        yield FieldViolation(field, "is empty; a forced move says why, for the log")
