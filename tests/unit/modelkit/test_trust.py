"""Which keys are believed: pinned ones only, or those met first and what they endorse; nothing is used unsigned."""

from pathlib import Path

import pytest

from services.grpckit.settings import Environment, SettingsError
from services.modelkit.trust import Trust, TrustSettings
from services.registry.signing.keys import Signer
from tuneforge.manifest import Manifest, ManifestFile
from tuneforge.signatures import PublicKey, Signature, SignatureError

VERSION = "projects/p/models/m/versions/1"
MANIFEST = Manifest.of([ManifestFile("config.json", "a" * 64, 2)])


class Registry:
    """A registry's keys and signatures; counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "key.pem"
        self._folder = folder
        self.signer = Signer(self._file, may_make=True)
        self.questions = 0

    def change_key(self) -> None:
        """Puts a new key on top of the file and reads it anew."""
        old = self._file.read_bytes() if self._file.exists() else b""
        fresh = self._folder / "fresh.pem"
        fresh.unlink(missing_ok=True)
        assert Signer(fresh, may_make=True).public_keys
        self._file.write_bytes(fresh.read_bytes() + old)
        self.signer = Signer(self._file, may_make=False)

    def public_keys(self) -> tuple[PublicKey, ...]:
        """Returns every key."""
        self.questions += 1
        return self.signer.public_keys

    def signature(self, version: str) -> Signature:
        """Signs."""
        self.questions += 1
        return self.signer.sign(version, MANIFEST)


def test_keys_are_met_once(tmp_path: Path) -> None:
    """The first check asks for keys and signature; a later one with a signature asks for nothing, after a start too."""
    registry, file = Registry(tmp_path), tmp_path / "trusted.json"
    signature = Trust(file, TrustSettings()).check(VERSION, MANIFEST, None, registry)
    assert registry.questions == 2
    Trust(file, TrustSettings()).check(VERSION, MANIFEST, signature, registry)
    assert registry.questions == 2


def test_an_endorsed_key_is_trusted_and_a_stranger_is_not(tmp_path: Path) -> None:
    """Over three changes of the key trust goes on; another registry that takes the place is refused."""
    registry, trust = Registry(tmp_path), Trust(tmp_path / "trusted.json", TrustSettings())
    first = trust.check(VERSION, MANIFEST, None, registry)
    for _ in range(3):
        registry.change_key()
    last = trust.check(VERSION, MANIFEST, None, registry)
    assert last.key_id != first.key_id
    trust.check(VERSION, MANIFEST, first, registry)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SignatureError, match="not trusted here"):
        trust.check(VERSION, MANIFEST, None, Registry(other))


def test_only_pinned_keys_count(tmp_path: Path) -> None:
    """With a pinned id the endorsed successor does not count until it is pinned too."""
    registry = Registry(tmp_path)
    pinned = registry.signer.public_keys[0].key_id
    trust = Trust(tmp_path / "trusted.json", TrustSettings(key_ids=frozenset({pinned})))
    trust.check(VERSION, MANIFEST, None, registry)
    registry.change_key()
    with pytest.raises(SignatureError, match="not trusted here"):
        trust.check(VERSION, MANIFEST, None, registry)
    both = frozenset(key.key_id for key in registry.signer.public_keys)
    Trust(tmp_path / "trusted.json", TrustSettings(key_ids=both)).check(VERSION, MANIFEST, None, registry)


def test_what_is_not_signed_is_refused(tmp_path: Path) -> None:
    """Other files, another version, no version at all, a damaged file of keys: each has its sentence."""
    registry, file = Registry(tmp_path), tmp_path / "trusted.json"
    trust = Trust(file, TrustSettings())
    signature = trust.check(VERSION, MANIFEST, None, registry)
    other = Manifest.of([ManifestFile("config.json", "b" * 64, 2)])
    for version, manifest, words in (
        (VERSION, other, "does not fit"),
        (VERSION + "0", MANIFEST, "does not fit"),
        ("", MANIFEST, "nothing vouches"),
    ):
        with pytest.raises(SignatureError, match=words):
            trust.check(version, manifest, signature, registry)
    file.write_text("{")
    with pytest.raises(SignatureError, match="damaged"):
        trust.check(VERSION, MANIFEST, signature, registry)


def test_pinned_ids_are_read_from_the_environment() -> None:
    """Ids with commas and spaces; what is no id is refused at the start."""
    ids = {"a" * 64, "b" * 64}
    read = TrustSettings.from_env(Environment({"TUNEFORGE_TRUSTED_KEY_IDS": f" {', '.join(sorted(ids))}, "}))
    assert read.key_ids == ids
    env = Environment({"TUNEFORGE_TRUSTED_KEY_IDS": "mine"})
    TrustSettings.from_env(env)
    with pytest.raises(SettingsError, match="TUNEFORGE_TRUSTED_KEY_IDS"):
        env.finish()
