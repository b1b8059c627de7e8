"""Opens the home of blobs that the settings name."""

from typing import TYPE_CHECKING

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.folder_lock import StartRefused
from services.grpckit.logging import get_logger
from services.registry.blobs import store
from services.registry.blobs.copies import LocalCopies
from services.registry.blobs.folder import BlobFolder
from services.registry.blobs.parts import Parts
from services.registry.library import Library, Storage
from services.registry.settings import RegistrySettings

if TYPE_CHECKING:
    from services.registry.blobs.s3 import S3Store

_log = get_logger(__name__)


def storage_of(settings: RegistrySettings) -> Storage:
    """Returns the places of bytes, not yet prepared."""
    data = settings.server.data
    objects = _objects_of(settings)
    return Storage(
        blobs=objects or BlobFolder(data),
        objects=objects,
        parts=Parts(data, reserve_bytes=settings.reserve_bytes),
        copies=LocalCopies(data, limit_bytes=settings.storage.cache_bytes),
        upload_silence_s=settings.storage.upload_silence_s,
    )


def _objects_of(settings: RegistrySettings) -> "S3Store | None":
    if settings.storage.s3 is None:
        return None
    from services.registry.blobs.s3 import S3Store

    return S3Store(settings.storage.s3)


async def claim(library: Library) -> None:
    """Makes sure that the home belongs to this registry's database.

    Raises:
        ServiceError: `STORAGE_MISCONFIGURED`: it belongs to another; `STORAGE_UNAVAILABLE`: it does not answer.
    """
    owner = await library.database.write(store.owner)
    await library.transfer(library.blobs.claim, owner)


async def prepare_storage(library: Library) -> None:
    """Makes folders and tries the home.

    Raises:
        StartRefused: The object store refuses the registry. One that does not answer is waited for by each call.
    """
    await library.transfer(library.parts.prepare)
    await library.transfer(library.copies.prepare)
    try:
        await library.transfer(library.blobs.prepare)
        await claim(library)
    except ServiceError as error:
        if error.reason is Reason.STORAGE_MISCONFIGURED:
            raise StartRefused(error.message) from None
        _log.warning("the object store does not answer yet", problem=error.message)
