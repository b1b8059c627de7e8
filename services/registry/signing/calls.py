"""The methods of signatures."""
# ruff: noqa: ARG002 - gRPC gives every method a context; who calls is in services.grpckit.context instead

from collections.abc import AsyncIterator
from contextlib import aclosing

from services.grpckit.errors import not_found
from services.grpckit.pages import cut, page_of
from services.registry.calls import Calls, Context
from services.registry.library import Library, now_us
from services.registry.signing import store, verification, wire
from services.registry.signing.adoption import manifest_of_version
from services.registry.signing.store import StoredKey
from services.registry.slots import Slots
from tuneforge.names import InvalidName, is_digest, project_of
from tuneforge.v1 import signing_pb2 as pb

_CURRENT = "current"
AT_ONCE = 8
"""Versions that are verified at once: each may be read from a store, and takes its files' place on the disk."""


class SigningCalls(Calls):
    """The methods of signatures."""

    def __init__(self, library: Library) -> None:
        super().__init__(library)
        self._slots = Slots("verifications")

    async def GetSigningKey(self, request: pb.GetSigningKeyRequest, context: Context) -> pb.SigningKey:
        """Returns a public key."""
        collection, _, wanted = request.name.partition("/")
        if collection != wire.KEYS or not (wanted == _CURRENT or is_digest(wanted)):
            raise InvalidName(request.name, f"{wire.KEYS}/{{key_id}} or {wire.KEYS}/{_CURRENT}")
        keys, current = await self._signing_keys()
        for key in keys:
            if key[0].key_id == (current if wanted == _CURRENT else wanted):
                return wire.key_to_proto(key, current)
        raise not_found("signing key", request.name)

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, context: Context) -> pb.ListSigningKeysResponse:
        """Lists every public key."""
        page = page_of(request.page_size, request.page_token, scope="ListSigningKeys")
        keys, current = await self._signing_keys()
        ordered = sorted(keys, key=lambda key: key[0].key_id != current)
        begin = page.after_number(0)
        rows = list(enumerate(ordered, 1))[begin : begin + page.size + 1]
        entries, token = cut(rows, page, lambda row: str(row[0]))
        messages = (wire.key_to_proto(key, current) for _, key in entries)
        return pb.ListSigningKeysResponse(keys=messages, next_page_token=token)

    async def GetSignature(self, request: pb.GetSignatureRequest, context: Context) -> pb.Signature:
        """Returns the signature of a version."""
        return wire.signature_to_proto(await self._database.read(lambda c: store.get_signature(c, request.name)))

    async def VerifyVersion(
        self, request: pb.VerifyVersionRequest, context: Context
    ) -> AsyncIterator[pb.VerifyVersionResponse]:
        """Reads every byte of a version and says what is wrong with it."""
        name = request.name
        manifest, signature = await self._database.read(
            lambda c: (manifest_of_version(c, name), store.find_signature(c, name))
        )
        keys = {key.key_id: key.pem for key, _ in (await self._signing_keys())[0]}
        with self._slots.one_for(project_of(name), most=AT_ONCE):
            checks = verification.verify_version(self._library, name, manifest, signature, keys)
            async with aclosing(checks) as progress:
                async for each in progress:
                    yield wire.progress_to_proto(each)

    async def _signing_keys(self) -> tuple[list[StoredKey], str]:
        """Returns every key and the id of the one that signs; makes the first one when there is none yet."""
        keys = await self._library.transfer(lambda: self._library.signer.public_keys)
        stored = await self._database.read(store.list_keys)
        if keys[0].key_id not in {key.key_id for key, _ in stored}:
            time_us = now_us()
            await self._database.write(lambda connection: store.add_keys(connection, keys, time_us=time_us))
            stored = await self._database.read(store.list_keys)
        return stored, keys[0].key_id
