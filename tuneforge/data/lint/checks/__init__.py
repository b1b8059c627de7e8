"""All checks, by name, and which of them a lint runs."""

from collections.abc import Iterable
from typing import Final

from tuneforge.data.lint.check import GROUPS, Check
from tuneforge.data.lint.checks.conflicts import Conflicts
from tuneforge.data.lint.checks.control_tokens import ControlTokens
from tuneforge.data.lint.checks.conversations import Conversations
from tuneforge.data.lint.checks.duplicates import Duplicates
from tuneforge.data.lint.checks.encoding import Encoding
from tuneforge.data.lint.checks.labels import Labels
from tuneforge.data.lint.checks.leakage import Leakage
from tuneforge.data.lint.checks.length import Length
from tuneforge.data.lint.checks.near_duplicates import NearDuplicates
from tuneforge.data.lint.checks.privacy import PersonalData, Secrets
from tuneforge.data.lint.checks.template import Template
from tuneforge.data.lint.options import LintOptions, UnknownCheck

ROWS: Final = "rows"
"""Name under which rows that cannot be read are told; never switched off."""
CHECKS: Final[dict[str, type[Check]]] = {
    check.name: check
    for check in (
        Conversations,
        Encoding,
        ControlTokens,
        Duplicates,
        Conflicts,
        Labels,
        Leakage,
        NearDuplicates,
        Secrets,
        PersonalData,
        Template,
        Length,
    )
}
"""Every check that can be switched on and off."""


def chosen(options: LintOptions) -> list[type[Check]]:
    """Returns the checks that a lint is to run.

    Raises:
        UnknownCheck: a name is neither that of a check nor of a group; all such names are told.
    """
    wanted = _named(options.only) if options.only else set(CHECKS)
    wanted -= _named(options.without)
    unknown = [name for name in (*options.only, *options.without) if name not in CHECKS and name not in GROUPS]
    if unknown:
        known = ", ".join([*CHECKS, *GROUPS])
        raise UnknownCheck(f"No check or group is called {', '.join(map(repr, unknown))}. There are: {known}.")
    return [check for name, check in CHECKS.items() if name in wanted]


def _named(names: Iterable[str]) -> set[str]:
    return {name for name, check in CHECKS.items() if name in names or check.group in names}
