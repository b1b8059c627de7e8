"""The shared parts of a registry without its server, for tests of rules and of what lies on disk."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.grpckit.database import Database
from services.grpckit.settings import ServerSettings
from services.registry.blobs import transfers
from services.registry.blobs.opening import storage_of
from services.registry.blobs.settings import S3Settings, StorageSettings
from services.registry.library import Library
from services.registry.settings import RegistrySettings
from services.registry.signing.keys import Signer
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from tests.support.postgres import postgres_of
from tuneforge.manifest import ManifestFile


@contextmanager
def open_library(data: Path, *, s3: S3Settings | None = None, cache_bytes: int = 2**30) -> Iterator[Library]:
    """Opens the parts of a registry over a data folder while the block runs."""
    server = ServerSettings(service="registry", listen="127.0.0.1:0", data=data)
    storage = storage_of(RegistrySettings(server=server, reserve_bytes=0, storage=_storage(s3, cache_bytes)))
    database = Database(
        data / "registry.sqlite",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        postgres=postgres_of("registry", data),
    )
    database.open()
    library = Library(database, storage, Signer(data / "key.pem", may_make=True))
    for place in (storage.parts, storage.copies, storage.blobs):
        place.prepare()
    try:
        yield library
    finally:
        library.close()


def _storage(s3: S3Settings | None, cache_bytes: int) -> StorageSettings:
    return StorageSettings(s3=s3, cache_bytes=cache_bytes, collect_every_s=0)


async def store(library: Library, content: bytes, path: str = "file", *, project: str = "p") -> ManifestFile:
    """Stores content as a blob of a project and returns its entry for a manifest."""

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    digest = hashlib.sha256(content).hexdigest()
    arrival = transfers.Arrival(project=project, key=digest, size_bytes=len(content), offset=0, sha256=digest)
    held, is_stored = await transfers.receive(library, arrival, pieces())
    assert (held, is_stored) == (len(content), True)
    return ManifestFile(path=path, sha256=digest, size_bytes=len(content))


def stored(library: Library, content: bytes) -> str:
    """Stores content as a blob, outside of any event loop, and returns its digest."""
    return asyncio.run(store(library, content)).sha256
