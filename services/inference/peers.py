"""The registry as this service sees it: which versions a name stands for, and their files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.peers import call
from services.grpckit.settings import PeerSettings
from services.inference.deployments import Layer
from services.inference.wire import manifest_from
from services.modelkit.artifacts import ArtifactKind, fetch
from services.modelkit.trust import Trust
from tuneforge import _wire
from tuneforge._transport import RetryPolicy, TransportSettings
from tuneforge.blobs import BlobClient
from tuneforge.names import project_of
from tuneforge.signatures import PublicKey, Signature
from tuneforge.signing import SignatureClient
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
                was trained on; `REVOKED` when it was made from revoked data.
        """
        layers: list[Layer] = []
        expected = ""
        while len(layers) < _MAX_LAYERS:
            version: models_pb2.ModelVersion = await call(
                self._stub.GetModelVersion(models_pb2.GetModelVersionRequest(name=reference)), peer="the registry"
            )
            is_adapter = version.kind == events_pb2.ARTIFACT_KIND_ADAPTER
            manifest = manifest_from(version.manifest)
            _refuse_tainted(version)
            signature = _wire.signature(version.signature) if version.HasField("signature") else None
            kind: ArtifactKind = "adapter" if is_adapter else "model"
            layers.append(Layer(version=version.name, kind=kind, manifest=manifest, signature=signature))
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


def _refuse_tainted(version: models_pb2.ModelVersion) -> None:
    if version.taints:
        own = [each for each in version.taints if each.name and project_of(each.name) == project_of(version.name)]
        if not own:  # a refusal is kept and passed on, so it names no data of other projects
            what = f"{version.name} was made from data of another project, which is revoked"
            raise ServiceError(Reason.REVOKED, what, metadata={"name": version.name})
        first = own[0]
        when = first.time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC")
        raise ServiceError(
            Reason.REVOKED,
            f"{version.name} was made from {first.name}, which {first.actor} revoked on {when}: {first.reason}",
            metadata={"name": version.name, "revoked": first.name},
        )


class RegistryFiles:
    """Files of versions, in a cache on this machine."""

    def __init__(self, address: str, peers: PeerSettings, cache: Path, trust: Trust) -> None:
        """Takes the registry's address, how to call it, the cache's folder, and whose signatures count."""
        self._address = address
        self._trust = trust
        self._settings = TransportSettings(token=peers.token or None, ca=peers.tls_ca)
        self._is_closed = False
        self.cache = cache

    def fetch(self, layer: Layer) -> Path:
        """Brings a layer's files into the cache; called in a thread. The registry is not asked for what is there.

        Raises:
            SignatureError: no trusted key has signed the files.
            TuneforgeError: the registry does not answer or lacks a blob.
            OSError, IntegrityError: as `BlobClient.download`.
        """
        self._trust.check(layer.version, layer.manifest, layer.signature, self)
        project = project_of(layer.version)
        with BlobClient.connect(self._address, project, settings=self._settings, retry=_RETRY) as blobs:
            return fetch(layer.manifest, _BreakableBlobs(blobs, self._check_open), self.cache)

    def public_keys(self) -> Sequence[PublicKey]:
        """Returns every key of the registry."""
        with SignatureClient.connect(self._address, settings=self._settings, retry=_RETRY) as client:
            return client.public_keys()

    def signature(self, version: str) -> Signature:
        """Returns the signature of a version."""
        with SignatureClient.connect(self._address, settings=self._settings, retry=_RETRY) as client:
            return client.signature(version)

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
