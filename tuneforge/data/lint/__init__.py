"""The linter of data sets: one library for SDK, registry and trainer, without torch and transformers.

Begin with `engine.py` (the pass), go on with `check.py` and one module of `checks/`; `preview.py` draws one row's
tokens with the trainer's own functions. What is exact and what is probable is in ADR 0009.
"""

from tuneforge.data.lint.checks import CHECKS
from tuneforge.data.lint.engine import Progress, Rows, lint
from tuneforge.data.lint.findings import Finding, Part, Summary, TokenCounts
from tuneforge.data.lint.options import LintOptions, TextModel, UnknownCheck
from tuneforge.data.lint.preview import LengthPolicy, PreviewToken, RowFate, RowPreview, TokenFate, preview
from tuneforge.data.problems import Severity

__all__ = [
    "CHECKS",
    "Finding",
    "LengthPolicy",
    "LintOptions",
    "Part",
    "PreviewToken",
    "Progress",
    "RowFate",
    "RowPreview",
    "Rows",
    "Severity",
    "Summary",
    "TextModel",
    "TokenCounts",
    "TokenFate",
    "UnknownCheck",
    "lint",
    "preview",
]
