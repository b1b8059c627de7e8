"""Where content came from, as a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where content came from."""

    uri: str
    """Without what may be secret in it."""
    revision: str
    digest: str
    time_us: int
