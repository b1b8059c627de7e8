"""How right routing answers are: exact match and accuracy of each field, the same rule for every model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Shares between 0 and 1."""

    exact_match: float
    """Answers that are a JSON object with exactly the expected keys and values; white space does not count."""
    field_accuracy: dict[str, float]
    """Answers that are a JSON object with the expected value of a field, by field."""


def score(answers: Sequence[str], expected: Sequence[str]) -> Score:
    """Scores answers against the expected JSON texts, one for one."""
    wanted = [json.loads(text) for text in expected]
    found = [_as_object(text) for text in answers]
    pairs = list(zip(found, wanted, strict=True))
    fields = list(wanted[0])
    return Score(
        exact_match=sum(answer == want for answer, want in pairs) / len(pairs),
        field_accuracy={
            field: sum(answer.get(field) == want[field] for answer, want in pairs) / len(pairs) for field in fields
        },
    )


def _as_object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
