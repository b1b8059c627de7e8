"""What is wrong with the files of a model: one entry a file and rule, each with a stable code."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Code(StrEnum):
    """The rule that a file breaks; told in the metadata of INVALID_MODEL as `codes`."""

    FORMAT_NOT_ALLOWED = "FORMAT_NOT_ALLOWED"
    """The kind of file is not taken: it can run code, or no model needs it."""
    FILE_MISSING = "FILE_MISSING"
    CORRUPT_SAFETENSORS = "CORRUPT_SAFETENSORS"
    HEADER_TOO_LARGE = "HEADER_TOO_LARGE"
    NON_FINITE_WEIGHTS = "NON_FINITE_WEIGHTS"
    MISSING_SHARD = "MISSING_SHARD"
    """Shards and index do not belong together."""
    SHAPE_MISMATCH = "SHAPE_MISMATCH"
    """Weights, configuration and tokenizer do not belong together."""
    CONFIG_NOT_ALLOWED = "CONFIG_NOT_ALLOWED"
    TOKENIZER_REFUSED = "TOKENIZER_REFUSED"
    TEMPLATE_REFUSED = "TEMPLATE_REFUSED"
    ADAPTER_REFUSED = "ADAPTER_REFUSED"
    """It is no LoRA adapter of a kind that is taken."""
    BASE_MISMATCH = "BASE_MISMATCH"
    """An adapter does not fit its base."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One file that breaks one rule."""

    path: str
    sentence: str
    """What is wrong and what to do."""
    code: Code


@dataclass(slots=True)
class Problems:
    """Collects what is wrong."""

    found: list[Problem] = field(default_factory=list)

    def add(self, path: str, sentence: str, code: Code) -> None:
        """Notes one problem."""
        self.found.append(Problem(path, sentence, code))

    def codes(self) -> set[Code]:
        """Returns the rules that are broken."""
        return codes_of(self.found)


def codes_of(problems: Iterable[Problem]) -> set[Code]:
    """Returns the rules that problems are about."""
    return {problem.code for problem in problems}
