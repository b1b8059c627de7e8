"""Which addresses are taken, and what their parts are."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.sources.addresses import (
    AddressRefused,
    HttpsAddress,
    HubAddress,
    PackageAddress,
    S3Address,
    parse,
)
from tests.support.url_corpus import REFUSED_BY_FORM


@pytest.mark.parametrize("text", REFUSED_BY_FORM, ids=range(len(REFUSED_BY_FORM)))
def test_a_tricky_address_is_refused(text: str) -> None:
    """No reading of it is tried: the refusal says why, and does not repeat what may be a secret."""
    with pytest.raises(AddressRefused) as refusal:
        parse(text.replace("{port}", "1"))
    assert "password" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://data.example.com/a/rows.jsonl", HttpsAddress("data.example.com", 443, "/a/rows.jsonl")),
        ("HTTPS://Data.Example.com:8443/r?sig=x%2Fy", HttpsAddress("data.example.com", 8443, "/r", "sig=x%2Fy")),
        ("https://data.example.com", HttpsAddress("data.example.com", 443, "/")),
        ("s3://team-data/sets/one/", S3Address("team-data", "sets/one/")),
        ("s3://team-data", S3Address("team-data", "")),
        ("hf://owner/name@v1.0", HubAddress("owner/name", "v1.0", "")),
        ("hf://datasets/owner/name", HubAddress("owner/name", "", "dataset")),
        ("hf://datasets/squad", HubAddress("squad", "", "dataset")),
        ("owner/name", HubAddress("owner/name", "", "")),
        ("gpt2@refs/pr/1", HubAddress("gpt2", "refs/pr/1", "")),
        ("package://some-weights/some_weights/model", PackageAddress("some-weights", "some_weights/model")),
    ],
)
def test_a_plain_address_is_read(text: str, expected: object) -> None:
    """Each form gives its parts."""
    assert parse(text) == expected


def test_a_signature_is_not_shown() -> None:
    """What is recorded of an https address ends before its query."""
    address = parse("https://data.example.com/rows.jsonl?X-Signature=secret")
    assert address.shown == "https://data.example.com/rows.jsonl"


_WORDS = ("https://", "HTTPS://", "s3://", "hf://", "data.example.com", "127.0.0.1", "0x7f", "1", "8443", "a", "B-")
_SIGNS = (".", "..", "@", ":", "/", "//", "\\", "%2e", "%2f", "%25", "%", "?", "#", "&", "[", "]", "::1", "\t", "\x00")
_PIECES = st.sampled_from((*_WORDS, *_SIGNS))


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_what_is_taken_means_the_same_to_another_reader(text: str) -> None:
    """Python's own reader, a lenient one, sees the host and port that were checked, and no way out of a path."""
    try:
        address = parse(text)
    except AddressRefused:
        return
    if isinstance(address, HttpsAddress):
        other = urlsplit(text)
        assert other.hostname == address.host
        assert (other.port or 443) == address.port
        assert other.username is None
        assert any(character.isalpha() for character in address.host.rpartition(".")[2])
        assert ".." not in other.path.split("/")
    shown = parse(address.shown)
    assert shown == address or isinstance(address, HttpsAddress | S3Address)
