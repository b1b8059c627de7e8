"""The registry as a process: `python -m services.registry`."""

import asyncio
import sys

from services.grpckit.database import Database
from services.grpckit.freed_memory import keep_freed_memory
from services.grpckit.logging import get_logger
from services.grpckit.server import ServiceDefinition, run, serve
from services.registry.blobs.opening import prepare_storage, storage_of
from services.registry.library import Library
from services.registry.policy import POLICIES
from services.registry.promotions.promoter import Promoter
from services.registry.recipes.shelf import RecipeShelf
from services.registry.retention.collector import collector_of
from services.registry.servicer import RegistryServicer
from services.registry.settings import RegistrySettings
from services.registry.signing.adoption import start_signing
from services.registry.signing.keys import KEY_FILE, Signer
from services.registry.sources.imports import Imports
from services.registry.tables import MIGRATIONS, SCHEMA_HEAD
from tuneforge.v1 import registry_pb2, registry_pb2_grpc

_log = get_logger(__name__)


def define(settings: RegistrySettings) -> ServiceDefinition:
    """Returns the registry, wired together and not yet open."""
    data = settings.server.data
    database = Database(
        data / "registry.sqlite",
        migrations=MIGRATIONS,
        schema_head=SCHEMA_HEAD,
        service="registry",
        postgres=settings.postgres,
    )
    signer = Signer(settings.signing_key or data / KEY_FILE, may_make=settings.signing_key is None)
    library = Library(database, storage_of(settings), signer)

    servicer = RegistryServicer(library)
    servicer.imports = Imports(library, settings.sources, data, reserve_bytes=settings.reserve_bytes)
    servicer.recipes = RecipeShelf(settings.recipes)

    servicer.collector = collector_of(library, settings)
    collecting: list[asyncio.Task[None]] = []

    servicer.promoter = Promoter(library, settings.promotions.location())

    async def start() -> None:
        await asyncio.to_thread(database.open)
        await start_signing(library, data, is_key_given=settings.signing_key is not None)
        await prepare_storage(library)
        if swept := await servicer.collector.give_up_uploads():
            _log.info("removed unfinished uploads", count=swept)
        collecting.append(asyncio.create_task(servicer.collector.run_for_ever()))
        if forgotten := await library.transfer(servicer.imports.prepare):
            _log.info("removed unfinished imports", count=forgotten, kept_s=settings.sources.kept_s)
        await servicer.promoter.start()

    async def drain() -> None:
        servicer.end_alias_watches()

    async def close() -> None:
        await servicer.recipes.close()
        for task in collecting:
            task.cancel()
        await asyncio.gather(*collecting, return_exceptions=True)
        await servicer.promoter.stop()
        library.close()

    return ServiceDefinition(
        descriptor=registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
        add_to_server=registry_pb2_grpc.add_RegistryServiceServicer_to_server,
        servicer=servicer,
        policies=POLICIES,
        start=start,
        drain=drain,
        close=close,
    )


async def main() -> int:
    """Serves until SIGTERM; returns the exit code."""
    keep_freed_memory(heaps=2)
    settings = RegistrySettings.from_env()
    return await serve(define(settings), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="registry"))
