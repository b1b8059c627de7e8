"""The parts of a recipe that have fields of their own, and the amounts that they name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import StrEnum
from typing import Any, Self, TypeVar

from tuneforge.errors import FieldViolation

Part = TypeVar("Part", "TrainingDataset", "TrainingResources")


class _Spelled(StrEnum):
    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class TrainingFramework(_Spelled):
    """What a run is written in; upper and lower case are taken."""

    PYTORCH = "pytorch"
    TENSORFLOW = "tensorflow"


class TrainingTask(_Spelled):
    """What a run learns; upper and lower case are taken."""

    REGRESSION = "regression"
    CLASSIFICATION = "classification"
    MULTITASK_CLASSIFICATION = "multitask_classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDataset:
    """The data set that a run wants."""

    description: str = ""
    """What it must contain, shown to users."""
    dataset_required: bool = False
    """Whether a run needs one; without it none is started."""
    dataset_name: str = ""
    """File name of the chosen one; filled in by the service."""

    def violations(self) -> Iterator[FieldViolation]:
        """Yields what is wrong."""
        for name, kind, word in (("description", str, "a text"), ("dataset_required", bool, "true or false")):
            if not isinstance(getattr(self, name), kind):
                yield FieldViolation(f"dataset_info.{name}", f"is not {word}: {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResources:
    """What each worker of a run is given, in the amounts of Kubernetes: `2` or `2000m` cores, `1Gi` or `2G` bytes."""

    requests: Mapping[str, str | int]
    limits: Mapping[str, str | int] = field(default_factory=dict)

    def violations(self) -> Iterator[FieldViolation]:
        """Yields what is wrong: amounts that are none, limits below what is requested."""
        amounts: dict[tuple[str, str], Decimal] = {}
        for block in ("requests", "limits"):
            entries = getattr(self, block)
            if not isinstance(entries, Mapping):
                yield FieldViolation(f"resources.{block}", f"is not a mapping from name to amount: {entries!r}")
                continue
            for name, value in entries.items():
                try:
                    amounts[block, name] = amount(name, value)
                except ValueError as error:
                    yield FieldViolation(f"resources.{block}.{name}", str(error))
        for (block, name), value in amounts.items():
            if block == "limits" and value < amounts.get(("requests", name), value):
                given = f"{self.limits[name]} is below the {self.requests[name]} that are requested"
                yield FieldViolation(f"resources.limits.{name}", given)


_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_UNITS = {"": Decimal(1), "m": Decimal("0.001")} | {
    letter + suffix: Decimal(base) ** power
    for base, suffix in ((1024, "i"), (1000, ""))
    for power, letter in enumerate(("K", "M", "G", "T", "P", "E"), 1)
}
_UNITS["k"] = _UNITS["K"]


def amount(name: str, value: object) -> Decimal:
    """Returns an amount of cores, bytes or devices.

    Args:
        name: What it is of: `cpu`, `memory`, `nvidia.com/gpu`, ...
        value: As written: 2, "2", "2000m", "1Gi", "2048Mi", "2G".

    Raises:
        ValueError: It is no quantity, or not above 0.
    """
    example = 'such as 2, "2" or "2000m"' if name == "cpu" else 'such as "1Gi", "2048Mi" or "2G"'
    found = _QUANTITY.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if found is None or found.group(2) not in _UNITS or (name == "cpu" and found.group(2) not in {"", "m"}):
        if isinstance(value, int) and not isinstance(value, bool) and value < 0:
            raise ValueError(f"must be positive, but is {value}")
        raise ValueError(f"is {value!r}, which is no quantity; give one {example}")
    quantity = Decimal(found.group(1)) * _UNITS[found.group(2)]
    if quantity <= 0:
        raise ValueError(f"must be positive, but is {value!r}")
    return quantity


def part_of(kind: type[Part], field_name: str, value: Any) -> tuple[Part | None, list[FieldViolation]]:
    """Returns a part from an object or a mapping, and what is wrong with it.

    Args:
        kind: `TrainingDataset` or `TrainingResources`.
        field_name: Name of the recipe's field.
        value: As given.
    """
    if isinstance(value, kind):
        return value, list(value.violations())
    if not isinstance(value, Mapping):
        return None, [FieldViolation(field_name, f"is not a {kind.__name__}: {value!r}")]
    known = {each.name for each in fields(kind)}
    problems = [
        FieldViolation(f"{field_name}.{key}", f"is unknown; known are {', '.join(sorted(known))}")
        for key in value
        if key not in known
    ]
    if kind is TrainingResources and "requests" not in value:
        problems.append(FieldViolation(f"{field_name}.requests", "is missing; say what each worker is given"))
    if problems:
        return None, problems
    made = kind(**value)
    return made, list(made.violations())
