"""One prompt, several targets."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from tuneforge.data.lint.check import Check, Code
from tuneforge.data.lint.findings import Finding, Part
from tuneforge.data.problems import Severity


class Conflicts(Check):
    """Finds prompts whose rows teach different targets.

    CONFLICTING_TARGETS, a warning, once a prompt, at its row with the lowest id. Exact as to prompts and targets;
    several good answers to one question are no fault, several labels of one text are.
    """

    name: ClassVar[str] = "conflicts"
    codes: ClassVar[Mapping[str, Code]] = {
        "CONFLICTING_TARGETS": Code(
            severity=Severity.WARNING, cure="Keep one of them, unless several answers are what you want to be learned."
        )
    }

    def finish(self) -> Iterator[Finding]:
        """Finds such prompts in each part."""
        ledger = self.ledger
        for part in Part:
            first: dict[bytes, int] = {}
            others: dict[bytes, set[bytes]] = {}
            related: dict[bytes, int] = {}
            for number in ledger.ranked(part):
                prompt, target = ledger.prompt_key(number), ledger.target_key(number)
                if prompt is None or target is None:
                    continue
                lowest = first.setdefault(prompt, number)
                if target != ledger.target_key(lowest):
                    others.setdefault(prompt, set()).add(target)
                    related.setdefault(prompt, number)
            for prompt, targets in others.items():
                message = f"Rows with its prompt have {len(targets) + 1} different targets."
                yield self.found_later("CONFLICTING_TARGETS", message, first[prompt], related=related[prompt])
