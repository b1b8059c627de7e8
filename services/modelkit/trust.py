"""Whose signatures are believed here: keys that the operator pins, or those that were met first.

Before a byte of a version is used, its signature is checked against these keys; after that, `manifest.verify` checks
every byte against the manifest that was signed. With pinned ids only those keys count. Without, the keys that the
registry has when it is asked for the first time are trusted and remembered in a file; a later key is trusted when a
trusted one has endorsed it. That first contact is believed without proof: pin the ids where it must not be.
Needs no torch and, until a signature is checked, no `cryptography`.
"""

import dataclasses
import json
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from services.grpckit.settings import Environment
from tuneforge.manifest import Manifest
from tuneforge.names import is_digest
from tuneforge.signatures import PublicKey, Signature, SignatureError, key_id_of, trusted_from, verify

KEYS_FILE = "trusted_keys.json"
"""Name of the file in a service's data folder."""


class SignatureSource(Protocol):
    """Where keys and signatures come from: `tuneforge.signing.SignatureClient`, or a stand-in."""

    def public_keys(self) -> Sequence[PublicKey]:
        """Returns every key of the registry."""

    def signature(self, version: str) -> Signature:
        """Returns the signature of a version."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """Which keys count."""

    key_ids: frozenset[str] = frozenset()
    """Ids of the keys that are trusted; empty: those that the registry has at the first contact, and what they endorse.
    TUNEFORGE_TRUSTED_KEY_IDS, separated by commas."""

    @classmethod
    def from_env(cls, env: Environment | None = None) -> "TrustSettings":
        """Reads the settings.

        Raises:
            SettingsError: Something is wrong, and no `env` was given in which to note it.
        """
        reader = env or Environment()
        ids = {each.strip() for each in reader.text("TUNEFORGE_TRUSTED_KEY_IDS").split(",")} - {""}
        if not all(map(is_digest, ids)):
            reader.refuse("TUNEFORGE_TRUSTED_KEY_IDS", "key ids of 64 lower-case hexadecimal digits, with commas")
            ids = set()
        if env is None:
            reader.finish()
        return cls(key_ids=frozenset(ids))


class Trust:
    """The keys that are trusted. Safe to use from several threads, and from several processes on one file.

    Args:
        file: Where keys are remembered.
        settings: Which keys count.
    """

    def __init__(self, file: Path, settings: TrustSettings) -> None:
        self._file = file
        self._settings = settings
        self._learning = threading.Lock()

    def check(
        self, version: str, manifest: Manifest, signature: Signature | None, source: SignatureSource
    ) -> Signature:
        """Refuses a manifest that the registry has not signed for this version.

        Args:
            version: Resource name of the version.
            manifest: Its files, as they are about to be used.
            signature: Its signature; None: asked for at the source.
            source: Asked only when the signature is missing or by a key that is not known yet.

        Returns:
            The signature.

        Raises:
            SignatureError: No trusted key has signed this.
            TuneforgeError: The registry does not answer, or has no signature.
        """
        if not version:
            raise SignatureError("the files are those of no version, so nothing vouches for them")
        if signature is None:
            signature = source.signature(version)
        keys = self._remembered()
        if signature.key_id not in keys:
            keys = self._learn(source)
        verify(signature, manifest, keys, name=version)
        return signature

    def _remembered(self) -> dict[str, str]:
        try:
            entries = json.loads(self._file.read_bytes())
            keys = {str(pem) for pem in entries["keys"]}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            raise SignatureError(f"{self._file} is damaged; remove it to meet the registry's keys anew") from None
        known = {key_id_of(pem): pem for pem in keys}
        if self._settings.key_ids:
            return {key_id: pem for key_id, pem in known.items() if key_id in self._settings.key_ids}
        return known

    def _learn(self, source: SignatureSource) -> dict[str, str]:
        with self._learning:
            offered = [key for key in source.public_keys() if key.key_id == key_id_of(key.pem)]
            known = self._remembered()
            if self._settings.key_ids:
                trusted = known | {key.key_id: key.pem for key in offered if key.key_id in self._settings.key_ids}
            elif known:
                trusted = trusted_from(known, offered)
            else:
                trusted = {key.key_id: key.pem for key in offered}
            if trusted != known:
                self._remember(trusted)
            return trusted

    def _remember(self, keys: Mapping[str, str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{KEYS_FILE}-", dir=self._file.parent)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"keys": sorted(keys.values())}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(self._file)
