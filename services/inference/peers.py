"""The registry as this service sees it: which versions a name stands for, and their files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.peers import call
from services.grpckit.settings import PeerSettings
from services.inference.deployments import Layer
from services.inference.wire import manifest_from
from services.modelkit.artifacts import fetch
from tuneforge._transport import RetryPolicy, TransportSettings
from tuneforge.blobs import BlobClient
from tuneforge.names import project_of
from tuneforge.v1 import events_pb2, models_pb2
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

_MAX_LAYERS: Final = 16
"""Adapters on adapters; a longer chain is a loop in the lineage, which a registry never makes."""
_RETRY: Final = RetryPolicy(budget_s=2.0, max_s=1.0)
"""Of one transfer without progress: short, because a deployment that waits for its files tries again by itself."""


class RegistryPeer:
    """Names and lineage of model versions."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Takes a channel of `services.grpckit.peers`."""
        self._stub: Any = RegistryServiceStub(channel)

    async def layers(self, reference: str) -> tuple[Layer, ...]:
        """Returns what a version or alias names: the whole model first, then the adapters above it.

        Args:
            reference: `projects/{project}/models/{model}/versions/{version}` or `.../aliases/{alias}`.

        Raises:
            ServiceError: `NOT_FOUND`; `PEER_UNAVAILABLE`; `BASE_MISMATCH` when a base is not the one that an adapter
                was trained on.
        """
        layers: list[Layer] = []
        expected = ""
        while len(layers) < _MAX_LAYERS:
            version: models_pb2.ModelVersion = await call(
                self._stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=reference)), peer="the registry"
            )
            is_adapter = version.kind == events_pb2.ARTIFACT_KIND_ADAPTER
            manifest = manifest_from(version.manifest)
            layers.append(Layer(version=version.name, kind="adapter" if is_adapter else "model", manifest=manifest))
            if expected and manifest.digest != expected:
                raise ServiceError(
                    Reason.BASE_MISMATCH,
                    f"{version.name} has the digest {manifest.digest}, but the adapter was trained on {expected}",
                    metadata={"version": version.name, "digest": manifest.digest, "expected": expected},
                )
            if not is_adapter:
                return tuple(reversed(layers))
            reference, expected = version.lineage.base.version, version.lineage.base.digest
        raise ServiceError(
            Reason.BASE_MISMATCH, f"{layers[0].version} stands on more than {_MAX_LAYERS - 1} adapters", metadata={}
        )


class RegistryFiles:
    """Files of versions, in a cache on this machine."""

    def __init__(self, address: str, peers: PeerSettings, cache: Path) -> None:
        """Takes the registry's address, how to call it, and the cache's folder."""
        self._address = address
        self._settings = TransportSettings(token=peers.token or None, ca=peers.tls_ca)
        self._is_closed = False
        self.cache = cache

    def fetch(self, layer: Layer) -> Path:
        """Brings a layer's files into the cache; called in a thread. The registry is not asked when they are there.

        Raises:
            TuneforgeError: the registry does not answer or lacks a blob.
            OSError, IntegrityError: as `BlobClient.download`.
        """
        project = project_of(layer.version)
        with BlobClient.connect(self._address, project, settings=self._settings, retry=_RETRY) as blobs:
            return fetch(layer.manifest, _BreakableBlobs(blobs, self._check_open), self.cache)

    def close(self) -> None:
        """Breaks off running transfers, so that no thread holds up the end of the process; parts stay for the next."""
        self._is_closed = True

    def _check_open(self, _: int = 0) -> None:
        if self._is_closed:
            raise ServiceError(Reason.DRAINING, "the service is shutting down")


@dataclass(frozen=True, slots=True)
class _BreakableBlobs:
    """Downloads that end between two pieces. Closing their channel from another thread could crash the process."""

    blobs: BlobClient
    check: Callable[[int], None]

    def download(self, sha256: str, size_bytes: int, dest: Path) -> None:
        self.check(0)
        self.blobs.download(sha256, size_bytes, dest, progress=self.check)
