"""A result that need not be trained again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """A version that was trained before from the same."""

    number: int
    """Number of the job that trained it."""
    job: str
    """Name of that job."""
    version: str
    """Name of the version."""
    digest: str
    """Digest of its manifest."""
    note: str = ""
    """Whether training again would give the same bits, as far as is known, as a sentence."""


def note_of(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns whether training again would give the same bits.

    The same inputs on the same kind of device give the same bits where the versions of everything are the same too.

    Args:
        then: Versions and devices of the run whose result is taken; empty: not known.
        now: Those of the project's newest run on such a device; empty: not known.
    """
    if not then or not now:
        return "In which environment it was trained is not known: training again may give other bits."
    other = [
        f"{name} {then.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in _BITS
        if then.get(name) != now.get(name)
    ]
    if other:
        return f"Equal inputs, other environment ({'; '.join(other)}): training again may give other bits."
    return "The newest run had the same environment: training again would give the same bits."


_BITS = ("platform", "threads", "torch", "transformers", "peft", "tokenizers", "processes")
"""What of an environment decides the last bits."""
