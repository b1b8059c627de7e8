"""The registry's keys and signatures over the wire, and the check of what it stores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import grpc

from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge._transport import RetryPolicy, TransportSettings, call, open_channel, typed_error
from tuneforge.signatures import PublicKey, Signature, key_id_of
from tuneforge.v1 import signing_pb2 as pb
from tuneforge.v1.registry_pb2_grpc import RegistryServiceStub

_VERIFY_DEADLINE_S = 6 * 3600.0
"""Reading every byte of a large model from a slow store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key of the registry."""

    key: PublicKey
    create_time: datetime
    is_current: bool
    """Whether new versions are signed with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationProblem:
    """One thing that is wrong with what is stored of a version."""

    path: str
    """The file; empty when it is the signature."""
    reason: str
    """`INTEGRITY` or `SIGNATURE`."""
    message: str


class SignatureClient:
    """Keys and signatures, for services: over a channel of its own. Safe to use from several threads."""

    def __init__(self, channel: grpc.Channel, *, retry: RetryPolicy | None = None) -> None:
        self._channel = channel
        self._stub = RegistryServiceStub(channel)
        self._retry = retry or RetryPolicy()

    @classmethod
    def connect(
        cls, address: str, *, settings: TransportSettings | None = None, retry: RetryPolicy | None = None
    ) -> Self:
        """Opens a channel to the registry at `host:port`; use `with`."""
        return cls(open_channel(address, settings), retry=retry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def public_keys(self) -> list[PublicKey]:
        """Returns every key that the registry ever signed with, the current one first."""
        request, keys = pb.ListSigningKeysRequest(), list[PublicKey]()
        while True:
            answer = call(self._stub.ListSigningKeys, request, retry=self._retry, peer="the registry")
            keys += [_signing_key(message).key for message in answer.keys]
            if not answer.next_page_token:
                return keys
            request.page_token = answer.next_page_token

    def signature(self, version: str) -> Signature:
        """Returns the signature of a version.

        Raises:
            NotFound: It has none.
        """
        request = pb.GetSignatureRequest(name=version)
        return _wire.signature(call(self._stub.GetSignature, request, retry=self._retry, peer="the registry"))


class Signing:
    """Keys and signatures; `client.signing`. Versions are given by whole name."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def key(self, key_id: str = "") -> SigningKey:
        """Returns a public key by its id, or the one that signs now.

        Raises:
            NotFound: There is no such key.
        """
        registry = self._connections.registry
        request = pb.GetSigningKeyRequest(name=f"signingKeys/{key_id or 'current'}")
        return _signing_key(registry.call(registry.stub.GetSigningKey, request))

    def all_keys(self) -> list[SigningKey]:
        """Returns every key that ever signed, the current one first."""
        registry = self._connections.registry
        pages = registry.pages(registry.stub.ListSigningKeys, pb.ListSigningKeysRequest())
        return [_signing_key(message) for page in pages for message in page.keys]

    def signature(self, version: str) -> Signature:
        """Returns the signature of a version.

        Raises:
            NotFound: There is no such version, or it has none.
        """
        registry = self._connections.registry
        return _wire.signature(registry.call(registry.stub.GetSignature, pb.GetSignatureRequest(name=version)))

    def verify(
        self, version: str, *, progress: Callable[[int, int], None] | None = None
    ) -> tuple[VerificationProblem, ...]:
        """Has the registry read every byte of a version; returns what is wrong, nothing when all is well.

        Args:
            version: Whole name of a version of a data set or a model.
            progress: Told how many bytes are read, and how many there are.

        Raises:
            NotFound: There is no such version.
        """
        found: tuple[VerificationProblem, ...] = ()
        for message in self._verify(version):
            if progress is not None:
                progress(message.verified_bytes, message.total_bytes)
            found = tuple(
                VerificationProblem(path=each.path, reason=each.reason, message=each.message)
                for each in message.problems
            )
        return found

    def _verify(self, version: str) -> Iterator[pb.VerifyVersionResponse]:
        registry = self._connections.registry
        try:
            yield from registry.stub.VerifyVersion(pb.VerifyVersionRequest(name=version), timeout=_VERIFY_DEADLINE_S)
        except grpc.RpcError as error:
            raise typed_error(error, registry.peer) from None


def _signing_key(message: pb.SigningKey) -> SigningKey:
    return SigningKey(
        key=PublicKey(
            key_id=key_id_of(message.public_key),  # not what the message says that it is
            pem=message.public_key,
            endorsed_by=message.endorsed_by,
            endorsement=message.endorsement,
        ),
        create_time=_wire.instant(message.create_time),
        is_current=message.is_current,
    )
