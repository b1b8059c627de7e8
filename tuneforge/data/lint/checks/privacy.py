"""Secrets and personal data: told by kind and place, never shown."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import PRIVACY, Check, Code
from tuneforge.data.lint.findings import Finding
from tuneforge.data.lint.subjects import Subject
from tuneforge.data.lint.text_patterns import Hit, personal_data, secrets
from tuneforge.data.problems import Severity


class Secrets(Check):
    """Finds what has the shape of a key, a token, a password in a URL, a private key, or of a word drawn at random.

    SECRET, a warning, probable: a model may repeat what it learned. Keys of examples in documentation have the same
    shape; identifiers drawn at random are taken for secrets too.
    """

    name: ClassVar[str] = "secrets"
    group: ClassVar[str] = PRIVACY
    codes: ClassVar[Mapping[str, Code]] = {
        "SECRET": Code(
            severity=Severity.WARNING,
            cure="Take it out and have it revoked, or put a placeholder in its place.",
            is_probable=True,
        )
    }

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Looks at every text."""
        return [self.found("SECRET", message, subject, field=field) for field, message in _told(subject, secrets)]


class PersonalData(Check):
    """Finds what has the shape of an e-mail address, a phone, account or card number, or a public internet address.

    PERSONAL_DATA, a warning, probable. Account and card numbers have a correct check digit, which one number in ten, or
    in a hundred, has by chance; public contacts of companies have the same shape as people's.
    """

    name: ClassVar[str] = "personal-data"
    group: ClassVar[str] = PRIVACY
    codes: ClassVar[Mapping[str, Code]] = {
        "PERSONAL_DATA": Code(
            severity=Severity.WARNING,
            cure="Make sure that you may use it, or put a placeholder in its place.",
            is_probable=True,
        )
    }

    def look(self, subject: Subject) -> Iterable[Finding]:
        """Looks at every text."""
        return [
            self.found("PERSONAL_DATA", message, subject, field=field)
            for field, message in _told(subject, personal_data)
        ]


def _told(subject: Subject, search: Callable[[str], Iterator[Hit]]) -> Iterator[tuple[str, str]]:
    """Yields (field, message) for each kind of hit in each text."""
    for field, text in subject.texts:
        hits = list(search(text))
        counts = Counter(kind for kind, _, _ in hits)
        for kind, count in counts.items():
            start, end = next((start, end) for found, start, end in hits if found == kind)
            more = f", the first of {count}" if count > 1 else ""
            yield field, f"It has what looks like {kind}, characters {start + 1} to {end}{more}."
