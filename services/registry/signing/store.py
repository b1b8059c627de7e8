"""The rows of signatures and of public keys. See `collections.py` for the manners of such functions."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from services.grpckit.errors import not_found
from services.registry.signing.keys import Signer
from services.registry.tables.signing import SIGNATURES, SIGNING_KEYS
from tuneforge.manifest import Manifest
from tuneforge.signatures import PublicKey, Signature

StoredKey = tuple[PublicKey, int]
"""A key and when it was first used, in microseconds since 1970."""


def add_keys(connection: Connection, keys: Sequence[PublicKey], *, time_us: int) -> None:
    """Notes public keys, oldest last, so that what they signed can be checked for ever."""
    known = set(connection.execute(select(SIGNING_KEYS.c.key_id)).scalars())
    for key in reversed(keys):
        if key.key_id not in known:
            connection.execute(
                insert(SIGNING_KEYS).values(
                    key_id=key.key_id,
                    public_key=key.pem,
                    create_time_us=time_us,
                    endorsed_by=key.endorsed_by,
                    endorsement=key.endorsement,
                )
            )


def list_keys(connection: Connection) -> list[StoredKey]:
    """Returns every key that ever signed."""
    return [
        (
            PublicKey(
                key_id=row.key_id, pem=row.public_key, endorsed_by=row.endorsed_by, endorsement=bytes(row.endorsement)
            ),
            row.create_time_us,
        )
        for row in connection.execute(select(SIGNING_KEYS).order_by(SIGNING_KEYS.c.create_time_us.desc()))
    ]


def find_signature(connection: Connection, version: str) -> Signature | None:
    """Returns the signature of a version; None when it has none."""
    statement = select(SIGNATURES).where(SIGNATURES.c.version == version, SIGNATURES.c.key_id != "")
    row = connection.execute(statement).one_or_none()
    return None if row is None else Signature(key_id=row.key_id, value=bytes(row.value))


def get_signature(connection: Connection, version: str) -> Signature:
    """Returns the signature of a version.

    Raises:
        ServiceError: `NOT_FOUND`.
    """
    found = find_signature(connection, version)
    if found is None:
        raise not_found("signature of", version)
    return found


def sign_version(connection: Connection, signer: Signer, version: str, manifest: Manifest, *, time_us: int) -> None:
    """Signs a version that is made in this transaction; one that is signed already is left as it is."""
    standing = select(SIGNATURES.c.version).where(SIGNATURES.c.version == version)
    if connection.execute(standing).one_or_none() is None:
        signature = signer.sign(version, manifest)
        connection.execute(
            insert(SIGNATURES).values(version=version, key_id=signature.key_id, value=signature.value, time_us=time_us)
        )
        add_keys(connection, signer.public_keys, time_us=time_us)


def unsigned(connection: Connection, limit: int) -> list[str]:
    """Returns versions that wait for their first signature because they are older than signing."""
    statement = select(SIGNATURES.c.version).where(SIGNATURES.c.key_id == "").limit(limit)
    return list(connection.execute(statement).scalars())


def sign_older(connection: Connection, signer: Signer, version: str, manifest: Manifest, *, time_us: int) -> None:
    """Gives a version that is older than signing its signature."""
    signature = signer.sign(version, manifest)
    connection.execute(
        update(SIGNATURES)
        .where(SIGNATURES.c.version == version, SIGNATURES.c.key_id == "")
        .values(key_id=signature.key_id, value=signature.value, time_us=time_us)
    )
    add_keys(connection, signer.public_keys, time_us=time_us)
