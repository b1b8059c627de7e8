"""Shapes of secrets and personal data: what has them, and what only looks like it."""

import random
import string
import time

import pytest

from tuneforge.data.lint.text_patterns import entropy_bits, is_card, is_iban, personal_data, secrets

_ALPHABET = string.ascii_letters + string.digits


def _drawn(length: int, alphabet: str = _ALPHABET) -> str:
    return "".join(random.Random(7).choices(alphabet, k=length))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ghp_" + _drawn(36), "a GitHub token"),
        ("github_pat_" + _drawn(50), "a GitHub token"),
        ("glpat-" + _drawn(20), "a GitLab token"),
        ("sk-ant-api03-" + _drawn(60), "an Anthropic key"),
        ("sk-proj-" + _drawn(48), "an OpenAI key"),
        ("sk-" + _drawn(48), "an OpenAI key"),
        ("hf_" + _drawn(34), "a Hugging Face token"),
        ("AIza" + _drawn(35), "a Google API key"),
        ("xoxb-" + _drawn(30), "a Slack token"),
        ("sk_live_" + _drawn(24), "a Stripe key"),
        ("SG." + _drawn(22) + "." + _drawn(43), "a SendGrid key"),
        ("npm_" + _drawn(36), "an npm token"),
        ("pypi-" + _drawn(80), "a PyPI token"),
        ("AccountKey=" + _drawn(86) + "==", "an Azure storage key"),
        ("eyJ" + _drawn(20) + ".eyJ" + _drawn(40) + "." + _drawn(43), "a JSON web token"),
        ("postgres://admin:" + _drawn(10) + "@db/x", "a password in a URL"),
        ("-----BEGIN " + "OPENSSH PRIVATE KEY-----", "a private key"),
        ("AKIA" + _drawn(16, string.ascii_uppercase), "an AWS access key"),
        (_drawn(40), "a long random word"),
    ],
)
def test_secrets_are_found_once_where_they_are(text: str, kind: str) -> None:
    """Each shape is found by its kind, at its place, and once."""
    (hit,) = secrets(f"Take {text} and go.")
    assert hit[0] == kind
    assert hit[1] == len("Take ")
    assert hit[2] <= len("Take ") + len(text)


@pytest.mark.parametrize(
    "text",
    [
        "/usr/lib/python3.11/site-packages/Company/Product/Module2/File3",
        "d41d8cd98f00b204e9800998ecf8427e",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "Donaudampfschifffahrtsgesellschaftskapitaen",
        "https://example.org/a/long/path/with/many/parts/index.html",
        "task-force-on-the-long-hyphenated-words-of-english",
        "AVeryLongCamelCaseNameOfAClassInJava8Enterprise",
        "=" * 80,
        "a" * 80,
    ],
)
def test_ordinary_long_words_are_no_secrets(text: str) -> None:
    """Paths, digests, long words, names and rulers are let be."""
    assert list(secrets(f"See {text} there.")) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("max.muster@firma.de", "an e-mail address"),
        ("GB82 WEST 1234 5698 7654 32", "an IBAN"),
        ("FR1420041010050500013M02606", "an IBAN"),
        ("4012888888881881", "a card number"),
        ("3782-822463-10005", "a card number"),
        ("(415) 555-2671", "a phone number"),
        ("+44 20 7946 0958", "a phone number"),
        ("1.1.1.1", "an IP address"),
        ("2001:4860:4860::8888", "an IP address"),
    ],
)
def test_personal_data_is_found(text: str, kind: str) -> None:
    """Each kind is found by its shape and, where it has one, its check digit."""
    assert [hit[0] for hit in personal_data(f"It is {text} as told.")] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "someone@example.com",
        "GB82 WEST 1234 5698 7654 33",
        "4012888888881882",
        "on 2024-02-29 at 10:15:30",
        "10.0.0.1 and 127.0.0.1",
        "version 1.2.3.4.5",
        "3.14159265358979",
        "1,234,567,890",
        "12345678",
        "std::vector<int>",
    ],
)
def test_what_only_looks_like_it_is_let_be(text: str) -> None:
    """Wrong check digits, dates, versions, private addresses and plain numbers are nobody's data."""
    assert list(personal_data(f"It is {text} as told.")) == []


def test_check_digits() -> None:
    """One changed digit is noticed, in any place."""
    card, iban = "4012888888881881", "DE89370400440532013000"
    assert is_card(card)
    assert is_iban(iban)
    for place in range(1, len(card)):
        changed = card[:place] + str((int(card[place]) + 1) % 10) + card[place + 1 :]
        assert not is_card(changed)
    for place in range(4, len(iban)):
        changed = iban[:place] + str((int(iban[place]) + 1) % 10) + iban[place + 1 :]
        assert not is_iban(changed)
    assert entropy_bits("") == 0
    assert entropy_bits("abcd") == 2


@pytest.mark.parametrize("piece", ["a", "1", "1 ", "a@", "A1", "eyJ.", "1.", "://a:", "x-", "::", "AB12 ", "(1) "])
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    """A text made to lead the patterns astray takes no more than a little while."""
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    list(secrets(text))
    list(personal_data(text))
    assert time.process_time() - began < 1.5
