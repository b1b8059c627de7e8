"""The rules for each field of a recipe; each returns the value in its type and what is wrong with it."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

from tuneforge.errors import FieldViolation
from tuneforge.promotion_paths import MOST_PATTERNS, path_problem, pattern_problem
from tuneforge.recipes.parameters import Declared, ParameterSpec
from tuneforge.recipes.values import (
    TrainingDataset,
    TrainingFramework,
    TrainingResources,
    TrainingTask,
    part_of,
)

Checked = tuple[Any, list[FieldViolation]]

NAME: Final = re.compile(r"[a-zA-Z0-9._@]+")
SHORTEST_NAME: Final = 4
LONGEST_NAME: Final = 128
_SECRET_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_MOUNT: Final = re.compile(r"(/[A-Za-z0-9._-]+)+")


def image_warning(image: str) -> str:
    """Returns what to look at in a container image's name; empty: nothing."""
    if "@sha256:" in image:
        return ""
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in {"", "latest"}:
        return f"the image {image!r} can change under its name; give a version as its tag, or its digest"
    return ""


def _text(field: str, value: Any, *, is_required: bool = False) -> Checked:
    if not isinstance(value, str) or "\0" in value:
        return value, [FieldViolation(field, f"is not a text: {value!r}")]
    if is_required and not value.strip():
        return value, [FieldViolation(field, "is empty")]
    return value, []


def _name(field: str, value: Any) -> Checked:
    if not isinstance(value, str) or not NAME.fullmatch(value) or not SHORTEST_NAME <= len(value) <= LONGEST_NAME:
        wanted = f"{SHORTEST_NAME} to {LONGEST_NAME} letters, digits and . _ @"
        return value, [FieldViolation(field, f"is {value!r}; give {wanted}")]
    if not any(character.isalnum() for character in value):
        return value, [FieldViolation(field, f"is {value!r}; give at least one letter or digit")]
    return value, []


def _optional_text(field: str, value: Any) -> Checked:
    return (None, []) if value is None else _text(field, value, is_required=True)


def _secret_name(field: str, value: Any) -> Checked:
    if value is None or (isinstance(value, str) and _SECRET_NAME.fullmatch(value)):
        return value, []
    # Not shown: who writes the secret itself here must not find it in a log.
    return None, [FieldViolation(field, "is not the name of a secret: a-z 0-9 - . ; give its name, never its content")]


def _texts(field: str, value: Any, *, is_required: bool = False) -> Checked:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and "\0" not in each for each in value):
        return value, [FieldViolation(field, f"is not a list of texts: {value!r}")]
    if is_required and (not value or not value[-1].strip()):
        return value, [FieldViolation(field, "is empty; the arguments are appended to its last entry")]
    return list(value), []


def _devices(field: str, value: Any) -> Checked:
    found, problems = _texts(field, value)
    if not problems and not found:
        problems = [FieldViolation(field, "is empty; name at least one kind of device, such as cpu")]
    return found, problems


def _word(kind: type[TrainingFramework] | type[TrainingTask]) -> Callable[[str, Any], Checked]:
    def check(field: str, value: Any) -> Checked:
        try:
            return kind(value), []
        except ValueError:
            return value, [FieldViolation(field, f"is {value!r}; give one of {', '.join(kind)}")]

    return check


def _mount(field: str, value: Any) -> Checked:
    is_path = isinstance(value, str) and _MOUNT.fullmatch(value) and not {".", ".."} & set(value.split("/"))
    if is_path:
        return value, []
    return value, [FieldViolation(field, f"is {value!r}; give an absolute path such as /data/dataset")]


def _promotion_path(field: str, value: Any) -> Checked:
    problem = path_problem(value) if isinstance(value, str) else f"is not a text: {value!r}"
    return value, [FieldViolation(field, problem)] if problem else []


def _patterns(field: str, value: Any) -> Checked:
    found, problems = _texts(field, value)
    if not problems:
        problems = [FieldViolation(field, problem) for problem in map(pattern_problem, found) if problem]
    if not problems and len(found) > MOST_PATTERNS:
        problems = [FieldViolation(field, f"has {len(found)} patterns; at most {MOST_PATTERNS} are taken")]
    return found, problems


def _count(smallest: int) -> Callable[[str, Any], Checked]:
    def check(field: str, value: Any) -> Checked:
        found, problem = ParameterSpec(name=field, kind="integer", default=smallest, ge=smallest).check(value)
        return found, [FieldViolation(field, problem)] if problem else []

    return check


CHECKS: Final[Mapping[str, Callable[[str, Any], Checked]]] = {
    "name": _name,
    "image": lambda field, value: _text(field, value, is_required=True),
    "command": lambda field, value: _texts(field, value, is_required=True),
    "framework": _word(TrainingFramework),
    "task": _word(TrainingTask),
    "description": _text,
    "project_url": _text,
    "inference_name": _optional_text,
    "image_pull_secret": _secret_name,
    "checkpoint_mount": _mount,
    "dataset_mount": _mount,
    "dataset_info": lambda field, value: part_of(TrainingDataset, field, value),
    "device_types": _devices,
    "resources": lambda field, value: part_of(TrainingResources, field, value),
    "accelerator_count": _count(0),
    "cluster_nodes": _count(1),
    "store_asset_patterns": _patterns,
    "promotion_path": _promotion_path,
}


def check_field(field: str, value: Any, declared: Any) -> Checked:
    """Checks one field of a recipe.

    Args:
        field: Its name, in `CHECKS`.
        value: As given, or the default.
        declared: What the class says: `Parameter` adds limits. No accelerator, 0, is within any limits.
    """
    found, problems = CHECKS[field](field, value)
    if problems or not isinstance(declared, Declared) or (field == "accelerator_count" and found == 0):
        return found, problems
    kinds: dict[type, str] = {int: "integer", str: "string", list: "array"}
    kind = kinds.get(str if isinstance(found, Enum) else type(found), "")
    if kind:
        limits = {
            name: getattr(declared, name) for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
        }
        spec = ParameterSpec(
            name=field, kind=kind, item_kind="string" if kind == "array" else "", default=None, **limits
        )
        _, problem = spec.check(found)
        if problem:
            problems = [FieldViolation(field, problem)]
    return found, problems
