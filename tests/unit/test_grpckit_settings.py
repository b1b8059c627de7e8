"""Settings: typed, with all problems in one answer."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.grpckit.settings import (
    Environment,
    PeerSettings,
    ServerSettings,
    SettingsError,
)
from tuneforge.addresses import is_loopback, split_address


def test_defaults_need_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any variable a service listens on its port on loopback and keeps its data below the working directory."""
    monkeypatch.chdir(tmp_path)
    settings = ServerSettings.from_env("registry", 7101, env=Environment({}))
    assert (settings.listen, settings.metrics_listen) == ("127.0.0.1:7101", "127.0.0.1:7111")
    assert settings.data == tmp_path / ".tuneforge/data/registry"
    assert (settings.tokens_file, settings.tls_cert, settings.peers.token) == (None, None, "")


def test_metrics_follow_the_port_and_can_be_off() -> None:
    """Metrics are ten above the gRPC port, free with port 0, and off with an empty value."""
    name = "TUNEFORGE_REGISTRY_LISTEN"
    assert _server({name: "127.0.0.1:8000"}).metrics_listen == "127.0.0.1:8010"
    assert _server({name: "127.0.0.1:0"}).metrics_listen == "127.0.0.1:0"
    assert _server({name: "127.0.0.1:65535"}).metrics_listen == "127.0.0.1:0"
    assert _server({"TUNEFORGE_REGISTRY_METRICS_LISTEN": ""}).metrics_listen == ""


def _server(variables: dict[str, str]) -> ServerSettings:
    env = Environment(variables)
    settings = ServerSettings.from_env("registry", 7101, env=env)
    env.finish()
    return settings


def test_all_problems_are_told_at_once() -> None:
    """One start tells every wrong setting, each with its name, its value and what it may be."""
    env = Environment(
        {
            "TUNEFORGE_REGISTRY_LISTEN": "nowhere",
            "TUNEFORGE_TLS_CERT": "/does/not/exist",
            "TUNEFORGE_LOG_LEVEL": "loud",
            "N": "-1",
            "S": "nan",
            "F": "maybe",
        }
    )
    ServerSettings.from_env("registry", 7101, env=env)
    assert env.integer("N", default=3, minimum=1, maximum=9) == 3
    assert env.seconds("S", default=1.5) == 1.5
    assert env.flag("F", default=True)
    with pytest.raises(SettingsError) as caught:
        env.finish()
    assert len(caught.value.problems) == 6
    for each in ("TUNEFORGE_REGISTRY_LISTEN='nowhere'", "TUNEFORGE_TLS_CERT", "loud", "N='-1'", "1 to 9", "F='maybe'"):
        assert each in str(caught.value)


def test_without_a_collector_the_reader_raises_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from_env` without an environment object raises at once."""
    monkeypatch.setenv("TUNEFORGE_TLS_CA", "/does/not/exist")
    with pytest.raises(SettingsError, match="TUNEFORGE_TLS_CA"):
        PeerSettings.from_env()
    with pytest.raises(SettingsError, match="TUNEFORGE_TLS_CA"):
        ServerSettings.from_env("registry", 7101)


def test_values_are_read_with_their_types(tmp_path: Path) -> None:
    """Each reader returns its type, and an empty value is the default."""
    file = tmp_path / "file"
    file.write_text("x")
    env = Environment({"I": " 7 ", "S": "0.25", "Y": "yes", "C": "RED", "E": "", "P": str(file), "D": str(file)})
    assert env.integer("I", default=0) == 7
    assert env.seconds("S", default=0) == 0.25
    assert env.flag("Y", default=False)
    assert env.choice("C", default="blue", choices=("red", "blue")) == "red"
    assert (env.integer("E", default=5), env.flag("E", default=True), env.file("E")) == (5, True, None)
    assert env.file("P") == file
    assert not env.problems
    env.folder("D", default=tmp_path)
    assert "a folder, not a file" in env.problems[0]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:7101", ("::1", 7101)),
        ("host.example:65535", ("host.example", 65535)),
        ("::1:7101", None),
        ("localhost", None),
        (":7101", None),
        ("host:65536", None),
        ("host:-1", None),
        ("host:٣", None),
        ("a b:1", None),
        ("http://x:1", None),
    ],
)
def test_an_address_is_split_or_refused(address: str, expected: tuple[str, int] | None) -> None:
    """An address is host:port, an IPv6 host in brackets."""
    assert split_address(address) == expected


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_the_address_reader(text: str) -> None:
    """Whatever is given is an address or None."""
    found = split_address(text)
    assert found is None or 0 <= found[1] <= 65535


def test_loopback_is_recognised_without_a_resolver() -> None:
    """Only addresses that are loopback by themselves count; a name that might resolve elsewhere does not."""
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "my-host", "127.0.0.1.evil.example"))


def test_a_token_is_not_in_the_text_of_settings() -> None:
    """Settings can be logged: the token is left out."""
    assert "s3cret" not in repr(PeerSettings(token="s3cret"))
