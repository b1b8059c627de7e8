"""The operator's file: what it allows, what is wrong with it, and that it holds no secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.grpckit.settings import Environment
from services.registry.sources.addresses import AddressRefused
from services.registry.sources.allowances import PUBLIC_HUB, AllowancesUnreadable, SecretReference, any_host, load
from services.registry.sources.settings import SourceSettings


def written(folder: Path, content: Any) -> Path:
    """Writes a file."""
    path = folder / "sources.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_without_a_file_only_the_public_hub_is_there() -> None:
    """No host, no store, no package."""
    allowed = load(None)
    assert allowed.https.hosts == ()
    assert allowed.s3 == {}
    assert allowed.packages == ()
    assert allowed.hub.endpoint == PUBLIC_HUB


def test_an_endpoint_of_ones_own_sends_downloads_nowhere_else(tmp_path: Path) -> None:
    """The public hub's hosts are for the public hub."""
    allowed = load(written(tmp_path, {"hub": {"endpoint": "https://hub.example.com"}}))
    assert allowed.hub.hosts == ()
    assert load(written(tmp_path, {"hub": None})).hub.endpoint == ""


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Each place by name; a secret that was written into the file is not repeated."""
    content = {
        "https": {"hosts": ["https://x", 3], "networks": ["10.0.0.0/99"], "host": []},
        "s3": {"a b": {}, "ok": {"endpoint": "ftp://x", "access_key": "canary-key"}},
        "hub": {"endpoint": 5, "tokens": {"t": {"value": "canary-token"}}},
        "packages": "pip",
        "other": 1,
    }
    with pytest.raises(AllowancesUnreadable) as error:
        load(written(tmp_path, content))
    text = str(error.value)
    for word in (
        "unknown key 'other'",
        "unknown key 'host'",
        "https.hosts is not a list",
        "10.0.0.0/99",
        "s3 has the name 'a b'",
        "s3.ok.endpoint",
        "one of access_key and secret_key",
        "s3.ok.access_key must be",
        "hub.endpoint",
        "hub.tokens.t must be",
        "packages is not a list",
    ):
        assert word in text
    assert "canary" not in text


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    """Also what no JSON reader takes."""
    with pytest.raises(AllowancesUnreadable):
        load(written(tmp_path, content))


def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    """The settings tell it among their own problems; a file that is not there too."""
    wrong = Environment({"TUNEFORGE_REGISTRY_SOURCES_FILE": str(written(tmp_path, "{"))})
    SourceSettings.from_env(wrong)
    assert "cannot be read as JSON" in wrong.problems[0]
    absent = Environment({"TUNEFORGE_REGISTRY_SOURCES_FILE": str(tmp_path / "absent")})
    SourceSettings.from_env(absent)
    assert absent.problems


def test_secrets_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file or the environment, as they are at that moment; one that is not there is told without its place."""
    path = tmp_path / "secret"
    reference = SecretReference(file=str(path))
    with pytest.raises(AddressRefused) as refusal:
        reference.read()
    assert str(path) not in str(refusal.value)
    path.write_text("one\n")
    assert reference.read() == "one"
    path.write_text("two")
    assert reference.read() == "two"
    monkeypatch.setenv("A_SECRET", "three")
    assert SecretReference(env="A_SECRET").read() == "three"


def test_hosts_match_whole_labels() -> None:
    """A star stands for what is below a domain, on the port that is named."""
    hosts = ("data.example.com", "*.mirror.example:8443")
    assert any_host(hosts, "data.example.com", 443)
    assert any_host(hosts, "a.b.mirror.example", 8443)
    for host, port in (("a.mirror.example", 443), ("mirror.example", 8443), ("xmirror.example", 8443)):
        assert not any_host(hosts, host, port)
