"""Signatures over manifests in the OpenSSF model-signing format: made by the registry, checked before every load.

What is signed is an in-toto statement that lists every file with its SHA-256, in a DSSE envelope; as a file it is a
Sigstore bundle, which `model_signing verify key` reads. It is made here from digests that are known already instead of
from bytes, and it follows from name and manifest alone, byte for byte and for ever: so only the signature proper is
stored and sent. The statement's subject is named like the version, so a signature of one version is none of another.
The key's id is the SHA-256 of its PEM text.

Needs `cryptography`, which is imported when the first signature is made or checked.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tuneforge.manifest import Manifest

SIGNATURE_FILE = "model.sig"
"""Where a signature lies beside the files that it is over; the format leaves this path out of what is signed."""
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

_ENDORSEMENT = b"tuneforge-signing-key-v1\n"


class SignatureError(Exception):
    """A signature is missing, malformed, by a key that is not trusted, or over other files."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a version."""

    key_id: str
    """SHA-256 of the public key's PEM text, 64 lower-case hexadecimal digits."""
    value: bytes
    """ECDSA over `signed_text`, DER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key of a registry."""

    key_id: str
    """SHA-256 of `pem`, 64 lower-case hexadecimal digits."""
    pem: str
    """The key as PEM text."""
    endorsed_by: str = ""
    """The key before it, which signed this one; empty for the first."""
    endorsement: bytes = b""
    """What that key signed, see `endorsement_text`."""


def key_id_of(pem: str) -> str:
    """Returns the id of a public key, 64 lower-case hexadecimal digits."""
    return hashlib.sha256(pem.encode()).hexdigest()


def endorsement_text(pem: str) -> bytes:
    """Returns what the key in use before signs so that those who trust it trust the next one."""
    return _ENDORSEMENT + pem.encode()


def statement(name: str, manifest: Manifest) -> bytes:
    """Returns the in-toto statement over the files of a version. These bytes must never change: they are signed."""
    files = sorted(manifest.files, key=lambda file: PurePosixPath(file.path))
    root = hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()
    serialization: dict[str, Any] = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    if manifest.file(SIGNATURE_FILE) is None:
        serialization["ignore_paths"] = [SIGNATURE_FILE]
    content = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": serialization,
            "resources": [{"name": file.path, "algorithm": "sha256", "digest": file.sha256} for file in files],
        },
    }
    return json.dumps(content, separators=(",", ":")).encode()


def signed_text(name: str, manifest: Manifest) -> bytes:
    """Returns what is signed for a version: the statement in the form that DSSE gives it."""
    return _enveloped(statement(name, manifest))


def bundle_of(name: str, manifest: Manifest, signature: Signature) -> bytes:
    """Returns the signature of a version as the JSON file that the standard tool reads."""
    content = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": signature.key_id}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(statement(name, manifest)).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature.value).decode(), "keyid": ""}],
        },
    }
    return json.dumps(content, separators=(",", ":")).encode()


def write_signature(folder: Path, name: str, manifest: Manifest, signature: Signature | None) -> None:
    """Puts the signature of a version beside its files, unless it has none or one of the files has the same name."""
    if signature is not None and manifest.file(SIGNATURE_FILE) is None:
        (folder / SIGNATURE_FILE).write_bytes(bundle_of(name, manifest, signature))


def verify(signature: Signature, manifest: Manifest, keys: Mapping[str, str], *, name: str) -> None:
    """Checks that a trusted key has signed exactly the files of a manifest, for exactly this version.

    Args:
        signature: Of the version.
        manifest: Its files.
        keys: Id -> PEM text of the keys that are trusted.
        name: Resource name of the version.

    Raises:
        SignatureError: It has not.
    """
    pem = _trusted(keys, signature.key_id)
    if not is_signed(pem, signature.value, signed_text(name, manifest)):
        raise SignatureError(
            f"the signature does not fit {name} with the manifest {manifest.digest}: one of the two was changed"
        )


def verify_bundle(bundle: bytes, manifest: Manifest, keys: Mapping[str, str], *, name: str | None) -> str:
    """Checks a signature in the form of a JSON file, also one that another tool has made.

    Args:
        bundle: The JSON file.
        manifest: What was signed, if all is well.
        keys: Id -> PEM text of the keys that are trusted.
        name: Resource name of the version; None takes a signature of any name, such as one by another tool.

    Returns:
        The id of the key.

    Raises:
        SignatureError: It is not; the message says why, and names the file that differs.
    """
    try:
        content = json.loads(bundle)
        key_id = content["verificationMaterial"]["publicKey"]["hint"]
        envelope = content["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signed,) = envelope["signatures"]
        signature = base64.b64decode(signed["sig"], validate=True)
        kinds = content["mediaType"], envelope["payloadType"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SignatureError("the signature is not a model-signing bundle made with a key") from None
    if kinds != (MEDIA_TYPE, PAYLOAD_TYPE):
        raise SignatureError(f"the signature is a bundle of an unknown kind: {kinds[0]!r}, {kinds[1]!r}")
    if not is_signed(_trusted(keys, key_id), signature, _enveloped(payload)):
        raise SignatureError(f"the signature does not fit: it was changed, or not made with the key {key_id}")
    _check_statement(payload, manifest, name)
    return str(key_id)


def is_signed(pem: str, signature: bytes, text: bytes) -> bool:
    """Returns whether a text was signed with the private half of a public key."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    digests: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    digest = digests.get(key.curve.key_size)
    if digest is None:
        return False
    try:
        key.verify(signature, text, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def trusted_from(known: Mapping[str, str], offered: Iterable[PublicKey]) -> dict[str, str]:
    """Returns the keys that are trusted because known ones are: these, and every key that one of them has endorsed.

    Args:
        known: Id -> PEM text of the keys that are trusted already.
        offered: What a registry says that its keys are.
    """
    trusted = dict(known)
    waiting = [key for key in offered if key.key_id not in trusted and key.key_id == key_id_of(key.pem)]
    is_growing = True
    while is_growing:
        is_growing = False
        for key in waiting:
            before = trusted.get(key.endorsed_by)
            if key.key_id in trusted or before is None:
                continue
            if is_signed(before, key.endorsement, endorsement_text(key.pem)):
                trusted[key.key_id] = key.pem
                is_growing = True
    return trusted


def _trusted(keys: Mapping[str, str], key_id: object) -> str:
    pem = keys.get(key_id) if isinstance(key_id, str) else None
    if pem is None:
        raise SignatureError(f"the signature is by the key {str(key_id)[:64]}, which is not trusted here")
    return pem


def _enveloped(payload: bytes) -> bytes:
    """Returns what DSSE signs: type and content, each with its length before it."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _check_statement(payload: bytes, manifest: Manifest, name: str | None) -> None:
    try:
        content = json.loads(payload)
        (subject,) = content["subject"]
        kinds = content["_type"], content["predicateType"]
        predicate = content["predicate"]
        way = predicate["serialization"]["method"], predicate["serialization"]["hash_type"]
        entries = [(each["name"], each["algorithm"], each["digest"]) for each in predicate["resources"]]
        signed_name, root = subject["name"], subject["digest"]["sha256"]
        found = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, _, digest in entries)).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SignatureError("what was signed is not a model-signing statement") from None
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE) or way != ("files", "sha256"):
        raise SignatureError(f"what was signed is of an unknown kind: {kinds[1]!r} by {way[0]!r} with {way[1]!r}")
    if root != found:
        raise SignatureError("what was signed contradicts itself: its digest is not that of its files")
    if name is not None and signed_name != name:
        raise SignatureError(f"the signature is that of {str(signed_name)[:300]!r}, not of {name!r}")
    _compare(entries, manifest)


def _compare(entries: list[tuple[str, str, str]], manifest: Manifest) -> None:
    signed = {path: (algorithm, digest) for path, algorithm, digest in entries}
    if len(signed) != len(entries):
        raise SignatureError("what was signed names a file twice")
    for file in manifest.files:
        entry = signed.pop(file.path, None)
        if entry is None:
            raise SignatureError(f"{file.path} is not among the files that were signed")
        if entry != ("sha256", file.sha256):
            found = f"{entry[0]} {entry[1][:64]}"
            raise SignatureError(f"{file.path} was signed with {found}, the manifest says sha256 {file.sha256}")
    if signed:
        raise SignatureError(f"{min(signed)} was signed, but is not in the manifest")
