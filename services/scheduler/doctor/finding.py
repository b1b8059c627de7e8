"""What is wrong, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A promise that a database does not keep."""

    rule: str
    """Stable name of the promise, such as `log.dense`."""
    subject: str
    """Resource that it is about."""
    problem: str
    """What is wrong, with the values that are wrong."""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.rule}  {self.subject}  {self.problem}"
