"""The inference service as a process: `python -m services.inference`."""

import asyncio
import sys

from services.grpckit.holding import Holding
from services.grpckit.identity import identity
from services.grpckit.peers import open_channel
from services.grpckit.server import ServiceDefinition, run, serve
from services.grpckit.version_holds import VersionHolds
from services.inference import store
from services.inference.engines import Engine, EnginePool
from services.inference.peers import RegistryFiles, RegistryPeer
from services.inference.policy import POLICIES
from services.inference.servicer import InferenceServicer
from services.inference.serving import Serving
from services.inference.settings import InferenceSettings
from services.modelkit.trust import KEYS_FILE, Trust
from tuneforge.v1 import inference_pb2, inference_pb2_grpc

HOLDS_EVERY_S = 60.0
"""Seconds between two comparisons of what is deployed with what the registry holds for it, when nothing changes."""
HOLDS_PAUSE_S = 1.0
"""Least seconds between two of them."""


def define(settings: InferenceSettings) -> ServiceDefinition:
    """Returns the inference service, wired together and not yet open; called inside the running event loop."""
    data, peers = settings.server.data, settings.server.peers
    database = store.open_database(data, settings.postgres)
    channel = open_channel(settings.registry_address, peers)
    registry = RegistryPeer(channel)
    pool = EnginePool(lambda: Engine.start(settings.engine))
    trust = Trust(data / KEYS_FILE, settings.trust)
    files = RegistryFiles(settings.registry_address, peers, data / "cache", trust)
    serving = Serving(database, files, pool)
    holding = Holding(
        VersionHolds(channel, lambda: database.write(lambda connection: identity(connection, "inference"))),
        lambda: database.read(store.held_versions),
        every_s=HOLDS_EVERY_S,
        pause_s=HOLDS_PAUSE_S,
    )
    tasks: list[asyncio.Task[None]] = []

    async def start() -> None:
        await asyncio.to_thread(database.open)
        await serving.start()
        tasks.append(asyncio.create_task(holding.run_for_ever()))

    async def drain() -> None:
        await serving.drain(settings.server.drain_s)

    async def close() -> None:
        files.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await holding.close()
        await serving.close()
        await channel.close()
        database.close()

    return ServiceDefinition(
        descriptor=inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
        add_to_server=inference_pb2_grpc.add_InferenceServiceServicer_to_server,
        servicer=InferenceServicer(database, registry, serving, holding),
        policies=POLICIES,
        start=start,
        drain=drain,
        close=close,
    )


async def main() -> int:
    """Serves until SIGTERM; returns the exit code."""
    settings = InferenceSettings.from_env()
    return await serve(define(settings), settings.server)


if __name__ == "__main__":
    sys.exit(run(main(), service="inference"))
