"""The registry's private keys: made at the first use in the data folder, or given by a setting as a file.

The file holds one private key, or several one after the other: the first signs, the others are those that signed before
it, newest first. So a key is changed by putting a new one on top of the file and starting the registry again: each
key endorses the one above it, and who trusts the old one trusts the new one.
"""

import os
import re
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.grpckit.folder_lock import StartRefused
from tuneforge.manifest import Manifest
from tuneforge.signatures import PublicKey, Signature, endorsement_text, key_id_of, signed_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KEY_FILE = Path("signing") / "key.pem"
"""Where the key lies in the data folder when no other file is given."""

_BLOCK = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.+?-----END [A-Z ]*PRIVATE KEY-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Pair:
    private: "EllipticCurvePrivateKey"
    public: PublicKey

    def sign(self, text: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        digests: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
        return self.private.sign(text, ec.ECDSA(digests[self.private.curve.key_size]))


class Signer:
    """Signs manifests. The key is read, or made, at the first use: `cryptography` costs 30 ms that a start may spare.

    Args:
        path: File with the private keys.
        may_make: Make the file with a new key when it is not there.
    """

    def __init__(self, path: Path, *, may_make: bool) -> None:
        self._path = path
        self._may_make = may_make
        self._pairs: tuple[_Pair, ...] = ()
        self._loading = threading.Lock()

    @property
    def public_keys(self) -> tuple[PublicKey, ...]:
        """The public halves, the one that signs first.

        Raises:
            StartRefused: The file cannot be read or made, or is not a file of keys.
        """
        return tuple(pair.public for pair in self._load())

    def sign(self, name: str, manifest: Manifest) -> Signature:
        """Returns the signature over the files of a version.

        Raises:
            StartRefused: As `public_keys`.
        """
        pair = self._load()[0]
        return Signature(key_id=pair.public.key_id, value=pair.sign(signed_text(name, manifest)))

    def _load(self) -> tuple[_Pair, ...]:
        with self._loading:
            if not self._pairs:
                if self._may_make and not self._path.exists():
                    _make(self._path)
                self._pairs = _pairs(self._path)
            return self._pairs


def _make(path: Path) -> None:
    """Writes a new P-256 key that the owner alone may read; when another process was faster, its key is kept."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        Path(draft).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _pairs(path: Path) -> tuple[_Pair, ...]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartRefused(f"the signing key {path} cannot be read: {error.strerror}") from None
    blocks = _BLOCK.findall(content)
    if not blocks:
        raise StartRefused(f"{path} holds no private key; give an unencrypted PEM file with an EC key")
    keys = [_private_key(path, number, block) for number, block in enumerate(blocks, 1)]
    pairs: list[_Pair] = []
    for key in reversed(keys):
        pairs.insert(0, _endorsed(key, pairs))
    return tuple(pairs)


def _private_key(path: Path, number: int, block: bytes) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(block, password=None)
    except (ValueError, TypeError) as error:
        raise StartRefused(f"key {number} of {path} cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    ):
        raise StartRefused(f"key {number} of {path} is not an EC key on P-256, P-384 or P-521")
    return key


def _endorsed(key: "EllipticCurvePrivateKey", older: Sequence[_Pair]) -> _Pair:
    from cryptography.hazmat.primitives import serialization

    pem = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    if not older:
        return _Pair(key, PublicKey(key_id=key_id_of(pem), pem=pem))
    before = older[0]
    public = PublicKey(
        key_id=key_id_of(pem),
        pem=pem,
        endorsed_by=before.public.key_id,
        endorsement=before.sign(endorsement_text(pem)),
    )
    return _Pair(key, public)
