"""Checks of a finished model: what each looks at, what it is held against, and the report as text and as JSON.

Plain arithmetic and text; what generates or reads weights gives its findings to these functions.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

LOSS_RANGE: Final = (0.0, 10.0)
"""In nats a token, both ends included: above it a model knows less than a guess over 20,000 words would."""
OUTPUT_THRESHOLD: Final = 0.8
"""Least share of prompts that must give an answer."""
PROFILE_FIELDS: Final = ("model_id", "base_model_id", "fine_tuning_method", "memory_gb")
"""What a profile must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check and what it found."""

    name: str
    passed: bool
    message: str
    """What was found, one sentence."""
    score: float | None = None
    """What was measured; None where the check is a plain yes or no."""
    threshold: float | None = None
    """What the score was held against."""
    details: Mapping[str, str] = field(default_factory=dict)


def check_training_loss(loss: float | None) -> Check:
    """Looks whether the last training loss is one that a model can have.

    Args:
        loss: In nats a token; None when the run reported none.
    """
    low, high = LOSS_RANGE
    details = {"least": str(low), "most": str(high)}
    if loss is None or not math.isfinite(loss):
        message = "The run ended without a finite loss."
        return Check(name="training_loss", passed=False, message=message, threshold=high, details=details)
    passed = low <= loss <= high
    relation = "lies" if passed else "does not lie"
    message = f"The last training loss of {loss:.4f} {relation} between {low} and {high}."
    return Check(name="training_loss", passed=passed, score=loss, threshold=high, message=message, details=details)


def check_model_output(completions: Sequence[str], keywords: Sequence[Sequence[str]] = ()) -> Check:
    """Looks whether the model answers its prompts.

    Args:
        completions: What it said to each prompt, at least one.
        keywords: For each prompt, words of which the answer must have one, whatever their case; an empty list asks
            for any answer at all. Empty: no prompt has any.
    """
    wanted = [*keywords, *([()] * (len(completions) - len(keywords)))]
    answered = [
        bool(text.strip()) and (not words or any(word.lower() in text.lower() for word in words))
        for text, words in zip(completions, wanted, strict=True)
    ]
    score = sum(answered) / len(answered)
    silent = [str(number) for number, is_answer in enumerate(answered, start=1) if not is_answer]
    details = {"prompts": str(len(answered)), "answered": str(sum(answered))}
    if silent:
        details["failed"] = ", ".join(silent[:100])
    return Check(
        name="model_output",
        passed=score >= OUTPUT_THRESHOLD,
        score=score,
        threshold=OUTPUT_THRESHOLD,
        message=f"{sum(answered)} of {len(answered)} prompts gave an answer that counts.",
        details=details,
    )


def check_profile(document: str | Mapping[str, Any]) -> Check:
    """Looks whether a profile is whole.

    Args:
        document: As text, or read already.
    """
    name = "aim_profile"
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError) as error:
            return Check(name=name, passed=False, message=f"The profile is not JSON: {error}.")
    if not isinstance(document, Mapping):
        return Check(name=name, passed=False, message="The profile is not a JSON object.")
    missing = [key for key in PROFILE_FIELDS if document.get(key) in (None, "")]
    if missing:
        return Check(name=name, passed=False, message=f"The profile lacks {', '.join(missing)}.")
    memory = document["memory_gb"]
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not math.isfinite(memory) or memory <= 0:
        return Check(name=name, passed=False, message=f"The profile has memory_gb {memory!r}; it must be above 0.")
    return Check(name=name, passed=True, score=float(memory), message="The profile has all that it must have.")


def report_text(title: str, checks: Sequence[Check], not_run: Mapping[str, str]) -> str:
    """Returns a report for people.

    Args:
        title: What was examined.
        checks: What was found.
        not_run: Checks that could not be made, with the reason.
    """
    lines = [f"Validation of {title}", ""]
    for check in checks:
        lines.append(f"{'PASS' if check.passed else 'FAIL'}  {check.name}")
        lines.append(f"      {check.message}")
        if check.score is not None:
            beside = "" if check.threshold is None else f" (threshold {check.threshold:g})"
            lines.append(f"      score {check.score:.4f}{beside}")
    lines += [f"-     {name}\n      not run: {reason}" for name, reason in sorted(not_run.items())]
    passed = sum(check.passed for check in checks)
    lines += ["", f"Summary: {passed}/{len(checks)} checks passed"]
    return "\n".join(lines) + "\n"


def report_json(title: str, checks: Sequence[Check], not_run: Mapping[str, str]) -> str:
    """Returns a report for programs; arguments as for `report_text`."""
    content = {
        "title": title,
        "passed": all(check.passed for check in checks),
        "checks_passed": sum(check.passed for check in checks),
        "checks_total": len(checks),
        "checks": [
            {
                "check_name": check.name,
                "passed": check.passed,
                "score": check.score,
                "threshold": check.threshold,
                "message": check.message,
                "details": dict(check.details),
            }
            for check in checks
        ],
        "not_run": dict(not_run),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
