"""Brings what an attempt needs to this machine: layers of the base and rows, by digest through the cache, or local.

Runs in the worker. While the registry is away it waits, for as long as nobody asks the worker to stop.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.modelkit.artifacts import LocalArtifact
from services.modelkit.trust import KEYS_FILE, Trust, TrustSettings
from services.trainer.admission import ArtifactInput, StartRequest
from services.trainer.engine.training_task import ALL_ROWS, RowChoice
from services.trainer.node_cache import NodeCache
from services.trainer.orders import Assignment
from tuneforge.data.split import Side
from tuneforge.errors import Reason, TuneforgeError
from tuneforge.manifest import IntegrityError, build, verify
from tuneforge.names import InvalidName, project_of

if TYPE_CHECKING:
    from tuneforge._transport import RetryPolicy, TransportSettings
    from tuneforge.blobs import BlobClient
    from tuneforge.signatures import PublicKey, Signature
    from tuneforge.signing import SignatureClient

Result = TypeVar("Result")

_TRANSFER_BUDGET_S = 1.0
"""How long one try of a transfer goes on without progress, before this module looks whether it is to stop."""
_WAIT_S = 1.0
_RETRIED = frozenset({Reason.PEER_UNAVAILABLE, Reason.DRAINING, Reason.TOO_MANY_CALLS, Reason.DEADLINE_EXCEEDED})
_RETRIED_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})


class Stopped(Exception):
    """The worker was asked to stop while it waited."""


class Patience(Protocol):
    """Waits, unless the worker is to stop."""

    def wait(self, seconds: float) -> None:
        """Waits.

        Raises:
            Stopped: The worker is to stop.
        """

    def say_waiting(self, message: str) -> None:
        """Tells people, once for each reason, that the attempt waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowInputs:
    """Files of rows on this machine, and which of their rows are taken."""

    files: tuple[Path, ...]
    choice: RowChoice = ALL_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What an attempt trains with, on this machine."""

    base: tuple[LocalArtifact, ...]
    """The layers of the base, root first."""
    train: RowInputs
    """Rows to learn from."""
    validation: RowInputs
    """Rows to validate on; without files where there are none."""


def bring(request: StartRequest, assignment: Assignment, cache: NodeCache, patience: Patience) -> Inputs:
    """Fetches, or finds, everything that an attempt needs.

    Raises:
        Stopped: The worker was asked to stop meanwhile.
        SignatureError: No trusted key has signed the files.
        IntegrityError: Bytes that were fetched twice are not those of the manifest.
        TuneforgeError: The registry refuses.
        OSError: The disk refuses.
    """
    base: tuple[LocalArtifact, ...]
    if assignment.base is not None:
        folder = Path(assignment.base)
        manifest = build(folder)
        base = (LocalArtifact(folder=folder, manifest=manifest, kind="model", ref_version="", digest=manifest.digest),)
    else:
        base = tuple(_layer(layer, assignment, cache, patience) for layer in request.base)
    return Inputs(
        base=base,
        train=_rows(Side.TRAIN, request.train, assignment.train, assignment, cache, patience),
        validation=_rows(Side.VALIDATION, request.validation, assignment.validation, assignment, cache, patience),
    )


def _layer(layer: ArtifactInput, assignment: Assignment, cache: NodeCache, patience: Patience) -> LocalArtifact:
    folder = _fetch(layer, assignment, cache, patience)
    return LocalArtifact(
        folder=folder,
        manifest=layer.manifest,
        kind="adapter" if layer.kind == "adapter" else "model",
        ref_version=layer.version,
        digest=layer.digest,
    )


def _rows(
    side: Side,
    rows: ArtifactInput | None,
    local: str | None,
    assignment: Assignment,
    cache: NodeCache,
    patience: Patience,
) -> RowInputs:
    if rows is None:
        return RowInputs(files=(Path(local),) if local else ())
    folder = _fetch(rows, assignment, cache, patience)
    try:
        verify(folder, rows.manifest)
    except IntegrityError:  # the cache is damaged, what the registry has is not
        cache.discard(rows.manifest)
        folder = _fetch(rows, assignment, cache, patience)
        verify(folder, rows.manifest)
    files = tuple(folder / file.path for file in rows.manifest.files)
    return RowInputs(files=files, choice=RowChoice(folder=folder, split=rows.split, side=side))


def _fetch(artifact: ArtifactInput, assignment: Assignment, cache: NodeCache, patience: Patience) -> Path:
    _require_signature(artifact, assignment, patience)
    if (folder := cache.hold(artifact.manifest)) is not None:
        return folder  # so that a run whose inputs are here needs no registry
    try:
        project = project_of(artifact.version)
    except InvalidName:
        project = assignment.name.project
    with blob_client(assignment.registry, project) as blobs:
        return insist(lambda: cache.fetch(artifact.manifest, blobs), assignment.registry, patience)


def _require_signature(artifact: ArtifactInput, assignment: Assignment, patience: Patience) -> None:
    """Refuses files that the registry has not signed; asks it only for what is not here."""
    trust = Trust(Path(assignment.cache).parent / KEYS_FILE, TrustSettings.from_env())
    source = _RegistrySignatures(assignment.registry)
    insist(
        lambda: trust.check(artifact.version, artifact.manifest, artifact.signature, source),
        assignment.registry,
        patience,
    )


@dataclass(frozen=True, slots=True)
class _RegistrySignatures:
    """Keys and signatures of the registry, over a connection for each question: there are few."""

    registry: str

    def public_keys(self) -> Sequence[PublicKey]:
        with self._client() as client:
            return client.public_keys()

    def signature(self, version: str) -> Signature:
        with self._client() as client:
            return client.signature(version)

    def _client(self) -> SignatureClient:
        from tuneforge.signing import SignatureClient  # imports grpc, see `blob_client`

        settings, retry = _transport()
        return SignatureClient.connect(self.registry, settings=settings, retry=retry)


@contextlib.contextmanager
def blob_client(registry: str, project: str) -> Iterator[BlobClient]:
    """Opens the way to a project's blobs. Imports grpc, so only a worker may call it, never the fork server."""
    from tuneforge.blobs import BlobClient

    settings, retry = _transport()
    with BlobClient.connect(registry, project, settings=settings, retry=retry) as client:
        yield client


def _transport() -> tuple[TransportSettings, RetryPolicy]:
    from services.grpckit.settings import PeerSettings
    from tuneforge._transport import RetryPolicy, TransportSettings

    peers = PeerSettings.from_env()
    settings = TransportSettings(token=peers.token or None, ca=peers.tls_ca)
    return settings, RetryPolicy(budget_s=_TRANSFER_BUDGET_S, max_s=1.0)


def is_temporary(error: TuneforgeError) -> bool:
    """Tells whether a transfer may succeed later that the registry has not answered, or not now."""
    return error.reason in _RETRIED or error.reason in _RETRIED_CODES


def insist(transfer: Callable[[], Result], registry: str, patience: Patience) -> Result:
    """Does a transfer again and again while the registry is away; what was moved already is not moved again."""
    while True:
        try:
            return transfer()
        except TuneforgeError as error:
            if not is_temporary(error):
                raise
            patience.say_waiting(f"waiting for the registry at {registry}: {error.message}")
            patience.wait(max(_WAIT_S, min(error.retry_after_s or 0.0, 10.0)))
