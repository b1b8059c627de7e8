"""Signatures at the start: a given key is checked, and versions that are older than signing are signed, once."""

from pathlib import Path

from sqlalchemy import Connection

from services.grpckit.logging import get_logger
from services.registry.datasets.store import get_dataset_version
from services.registry.library import Library, now_us
from services.registry.lineage.sealing import manifest_of
from services.registry.models.store import get_model_version
from services.registry.signing import store
from tuneforge.manifest import Manifest
from tuneforge.names import DatasetVersionName, ModelVersionName
from tuneforge.v1 import models_pb2

_log = get_logger(__name__)
_MARK = Path("signing") / "adopted"
"""Says that this was done. It lies beside the key and not in the database: who can change the database could otherwise
have a changed manifest signed as one that is older than signing."""
_VERSIONS_PER_WRITE = 100


async def start_signing(library: Library, data: Path, *, is_key_given: bool) -> None:
    """Prepares signing; does nothing that takes time when there is nothing to do.

    Args:
        library: With its database open.
        data: The data folder.
        is_key_given: The key is one of the operator's, so it is read now rather than at the first use.

    Raises:
        StartRefused: The key that is given is none.
    """
    if is_key_given:
        keys = library.signer.public_keys
        await library.database.write(lambda connection: store.add_keys(connection, keys, time_us=now_us()))
    mark = data / _MARK
    if mark.exists():
        return
    signed = 0
    while waiting := await library.database.read(lambda connection: store.unsigned(connection, _VERSIONS_PER_WRITE)):
        signed += len(waiting)

        def sign(connection: Connection, names: list[str] = waiting) -> None:
            for name in names:
                manifest = manifest_of_version(connection, name)
                store.sign_older(connection, library.signer, name, manifest, time_us=now_us())

        await library.database.write(sign)
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.touch()
    if signed:
        _log.info("signed the versions that were here before signing was", count=signed)


def manifest_of_version(connection: Connection, name: str) -> Manifest:
    """Returns the manifest of a stored version.

    Raises:
        ServiceError: `NOT_FOUND`.
        InvalidName: It is not the name of a version.
    """
    if "/datasets/" in name:
        return get_dataset_version(connection, DatasetVersionName.parse(name)).content.manifest
    version = get_model_version(connection, ModelVersionName.parse(name))
    return manifest_of(models_pb2.ModelVersion.FromString(version.content.record).manifest)
