"""Shapes of secrets and of personal data in a text.

Every pattern has literals without which it cannot match, so that most texts cost a few searches for a substring. What
matches is returned as a kind and a place, never as text.
"""

import ipaddress
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

Hit = tuple[str, int, int]
"""Kind, first character, one past the last."""

# Kind, literals of which one must be there, pattern.
_SECRETS: Final[tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...]] = tuple(
    (kind, literals, re.compile(pattern))
    for kind, literals, pattern in (
        ("a private key", ("PRIVATE KEY",), r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
        ("an AWS access key", ("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
        (
            "a GitHub token",
            ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
            r"\b(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{30,255})",
        ),
        ("a GitLab token", ("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,64}"),
        ("an Anthropic key", ("sk-ant-",), r"\bsk-ant-[A-Za-z0-9_-]{20,200}"),
        ("an OpenAI key", ("sk-",), r"\bsk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{0,160}[A-Za-z0-9]{20}"),
        ("a Hugging Face token", ("hf_",), r"\bhf_[A-Za-z0-9]{30,60}\b"),
        ("a Google API key", ("AIza",), r"\bAIza[0-9A-Za-z_-]{35}"),
        ("a Slack token", ("xox",), r"\bxox[abeoprs]-[A-Za-z0-9-]{10,250}"),
        ("a Stripe key", ("_live_", "_test_"), r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,250}"),
        ("a SendGrid key", ("SG.",), r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
        ("an npm token", ("npm_",), r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("a PyPI token", ("pypi-",), r"\bpypi-[A-Za-z0-9_-]{50,250}"),
        ("an Azure storage key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{40,120}={0,2}"),
        (
            "a JSON web token",
            ("eyJ",),
            r"\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}",
        ),
        ("a password in a URL", ("://",), r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:[^\s/@]{3,128}@"),
    )
)
_LITERALS: Final = tuple(literal for _, literals, _ in _SECRETS for literal in literals)
_LONG_WORD: Final = 28
_ENTROPY_TOKEN: Final = re.compile(r"[A-Za-z0-9+/_-]{28,512}={0,2}")
_LEAST_ENTROPY_BITS: Final = 4.0
_CLASSES: Final = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-=", "A" * 26 + "a" * 26 + "0" * 10 + "...." + "="
)

_EMAIL: Final = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_EXAMPLE_DOMAIN: Final = re.compile(r"@(?:[\w-]+\.)*(?:example(?:\.\w+)?|test|invalid|localhost)$", re.IGNORECASE)
_IBAN: Final = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b")
_NUMBER: Final = re.compile(r"(?<![\w.,])\+?\(?[0-9](?:[ ().-]{0,2}[0-9]){6,18}(?![\w])")
_PHONE: Final = re.compile(
    r"\+[1-9][0-9]{0,2}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){1,4}"
    r"|\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}"
    r"|0[0-9]{1,4}(?:[ -][0-9]{2,4}){2,4}"
)
_IPV4: Final = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.]*[0-9])")
_IPV6: Final = re.compile(
    r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::|[0-9A-Fa-f]{1,4})(?::?[0-9A-Fa-f]{1,4}){0,6}(?![\w:])"
)
_CARD_STARTS: Final = ("4", "51", "52", "53", "54", "55", "2", "34", "37", "6011", "65", "35", "30", "36", "38", "62")


def secrets(text: str) -> Iterator[Hit]:
    """Yields what has the shape of a secret: keys by their issuers' marks, and long words that look drawn at random."""
    taken: list[tuple[int, int]] = []
    for kind, literals, pattern in _SECRETS if any(map(text.__contains__, _LITERALS)) else ():
        if not any(map(text.__contains__, literals)):
            continue
        for match in pattern.finditer(text):
            if not _overlaps(taken, match.start(), match.end()):
                taken.append(match.span())
                yield kind, *match.span()
    if len(text) < _LONG_WORD or max(map(len, text.split()), default=0) < _LONG_WORD:
        return
    for match in _ENTROPY_TOKEN.finditer(text):
        if not _overlaps(taken, match.start(), match.end()) and _looks_random(match.group()):
            yield "a long random word", *match.span()


def personal_data(text: str) -> Iterator[Hit]:
    """Yields what has the shape of an e-mail address, a phone, card or account number, or an address on the internet.

    IBANs and cards have a correct check digit. Addresses of example domains and of private networks are nobody's.
    """
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _EXAMPLE_DOMAIN.search(match.group()):
                yield "an e-mail address", *match.span()
    if text.isascii() and not any(map(text.__contains__, "0123456789")):
        return
    taken: list[tuple[int, int]] = []
    for kind, start, end in (*_ibans(text), *_internet_addresses(text)):
        taken.append((start, end))
        yield kind, start, end
    for match in _NUMBER.finditer(text):
        if _overlaps(taken, match.start(), match.end()):
            continue
        kind = _number_kind(match.group())
        if kind:
            yield kind, *match.span()


def _ibans(text: str) -> Iterator[Hit]:
    for match in _IBAN.finditer(text):
        # The pattern may run on into the words that follow: shorter ends are tried too.
        end = match.end()
        while end - match.start() >= 15:
            if is_iban(text[match.start() : end]):
                yield "an IBAN", match.start(), end
                break
            end -= 1


def _internet_addresses(text: str) -> Iterator[Hit]:
    if "." in text:
        for match in _IPV4.finditer(text):
            if _is_public(match.group()):
                yield "an IP address", *match.span()
    if "::" in text or text.count(":") > 4:
        for match in _IPV6.finditer(text):
            if _is_public(match.group()):
                yield "an IP address", *match.span()


def _number_kind(text: str) -> str:
    digits = "".join(filter("0123456789".__contains__, text))
    if is_card(digits) and "." not in text and "(" not in text:
        return "a card number"
    return "a phone number" if 8 <= len(digits) <= 15 and _PHONE.fullmatch(text) else ""


def is_iban(text: str) -> bool:
    """Returns whether an account number has a length that IBANs have and the right check digits (ISO 13616)."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def is_card(digits: str) -> bool:
    """Returns whether digits have the length and the beginning of a card number, and its check digit (Luhn)."""
    if not 13 <= len(digits) <= 19 or not digits.startswith(_CARD_STARTS) or len(set(digits)) < 2:
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _looks_random(word: str) -> bool:
    """Returns whether a word mixes cases and digits as keys do, and not as paths, names and digests do."""
    classes = word.translate(_CLASSES)
    if min(classes.count("A"), classes.count("a"), classes.count("0")) < 3 or word.count("/") > len(word) // 16 + 1:
        return False
    changes = sum(first != second for first, second in itertools.pairwise(classes))
    return changes >= len(word) // 3 and entropy_bits(word) >= _LEAST_ENTROPY_BITS


def entropy_bits(text: str) -> float:
    """Returns the entropy of a text's characters in bits a character; 0 for an empty one."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values())


def _overlaps(spans: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(start < last and first < end for first, last in spans)
