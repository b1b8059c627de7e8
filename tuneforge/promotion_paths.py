"""Where a promoted version goes, and which of its files: rules that a recipe, the SDK and the registry share."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

MOST_PATTERNS = 50
"""Patterns of one promotion."""
FORM = "domain/algorithm_name/algorithm_application, e.g. molecules/mnist/mnist_test"
"""The form of a promotion path, in words."""

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_PATTERN = re.compile(r"[A-Za-z0-9._*?/-]{1,200}")


def path_problem(path: str) -> str:
    """Returns what is wrong with a promotion path; empty when it has the right form, or is empty.

    An empty path is no mistake: what has it is not meant to be promoted.
    """
    parts = path.split("/")
    if not path or (len(parts) == 3 and all(_PART.fullmatch(part) for part in parts)):
        return ""
    return f"is {path[:120]!r}; give {FORM}"


def pattern_problem(pattern: str) -> str:
    """Returns what is wrong with a pattern of file names; empty when nothing is."""
    if _PATTERN.fullmatch(pattern) and ".." not in pattern.split("/") and not pattern.startswith("/"):
        return ""
    return f"is {pattern[:120]!r}; give a name such as *.json, with letters, digits and . _ - * ? /"


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Returns the names that a pattern fits; without patterns all of them.

    A pattern without `/` is held against the last part of a name, so `*.json` fits `eval/report.json` too.
    """
    if not patterns:
        return list(names)
    return [name for name in names if any(_fits(name, pattern) for pattern in patterns)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern)
