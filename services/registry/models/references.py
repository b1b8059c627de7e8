"""What a request's name of a version means: a number, the newest one, or what an alias points to now."""

from sqlalchemy import Connection

from services.registry.aliases import store as alias_store
from services.registry.models.resources import ModelVersion
from services.registry.models.store import get_model_version
from tuneforge.names import AliasName, ModelVersionName


def resolve(connection: Connection, name: ModelVersionName | AliasName) -> ModelVersion:
    """Returns the version that a name or an alias means.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    if isinstance(name, AliasName):
        alias = alias_store.get_alias(connection, name)
        return get_model_version(connection, name.parent.version(alias.version))
    return get_model_version(connection, name)
