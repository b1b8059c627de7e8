"""The class that an operator's recipe is a subclass of."""

import difflib
import inspect
from collections.abc import Mapping
from types import FunctionType
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from tuneforge.errors import FieldViolation
from tuneforge.recipes.arguments import TrainingArguments, merge
from tuneforge.recipes.checks import CHECKS, check_field
from tuneforge.recipes.parameters import Declared, RecipeError
from tuneforge.recipes.values import TrainingDataset, TrainingFramework, TrainingResources, TrainingTask

_ARGUMENTS = "training_arguments"
_REQUIRED = ("name", "image", "command", "framework", "task", _ARGUMENTS)
_IGNORED_METHODS = ("run_cmd", "command_line")


class Recipe:
    """A typed template of a run; a subclass sets its fields as class attributes.

    An object is a recipe with some fields changed: `Mine(description="...", training_arguments={"epochs": 2})`, where
    given arguments are put over the defaults. A class with `abstract=True` is a base for others and is no recipe.
    """

    name: str
    """4 to 128 letters, digits and `. _ @`; unique. It is the recipe's name, not that of the class or file."""
    image: str
    """Container image."""
    command: list[str]
    """What is run; the arguments are appended to its last entry."""
    framework: TrainingFramework
    task: TrainingTask
    training_arguments: TrainingArguments
    """What users may set: a subclass of `TrainingArguments`, or an object of one."""
    description: str = ""
    """What it is, for users."""
    project_url: str = ""
    inference_name: str | None = None
    """Name of the service that serves its results; several recipes may share one. None: none."""
    image_pull_secret: str | None = None
    """Name of the secret with which the image is pulled, never its content."""
    checkpoint_mount: str = "/data/artifacts"
    """What a run leaves here is its result."""
    dataset_mount: str = "/data/dataset"
    """Where a run finds its data set."""
    dataset_info: TrainingDataset = TrainingDataset()
    device_types: list[str] = ["cpu"]  # noqa: RUF012 - read through `_field`, which copies it
    """Kinds of devices it runs on."""
    resources: TrainingResources = TrainingResources(requests={"cpu": 2, "memory": "1Gi"})
    """Of each worker."""
    accelerator_count: int = 1
    """Of each worker, >= 0; 0: none. None is requested on a device of kind `cpu`."""
    cluster_nodes: int = 1
    """Workers, >= 1."""
    store_asset_patterns: list[str] = ["*.json", "*.yaml", "*.csv", "*.pt", "*.ckpt"]  # noqa: RUF012 - as above
    """Which files of a run are kept."""
    promotion_path: str = ""
    """`domain/algorithm_name/algorithm_application`; empty: results cannot be promoted."""

    is_abstract: ClassVar[bool] = True

    def __init_subclass__(cls, *, abstract: bool = False, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.is_abstract = abstract
        _refuse_other_types(cls)

    def __init__(self, **given: Any) -> None:
        if type(self).is_abstract:
            raise RecipeError(f"{type(self).__name__} is a base for recipes, none itself", [])
        values, problems = _evaluate(type(self), given)
        if problems:
            raise RecipeError(f"the recipe {type(self).__name__} is wrong", problems)
        self.__dict__.update(values)

    @classmethod
    def problems(cls) -> list[FieldViolation]:
        """Returns all that is wrong with the class as a recipe."""
        return _evaluate(cls, {})[1]

    @classmethod
    def warnings(cls) -> list[str]:
        """Returns what its author should look at though it works."""
        unused = [
            name for name in _IGNORED_METHODS if isinstance(inspect.getattr_static(cls, name, None), FunctionType)
        ]
        return [
            f"the method {name} is not called: the command is made of `command` and the arguments" for name in unused
        ]

    def dump(self) -> dict[str, Any]:
        """Returns all fields by name, as plain values."""
        return {name: _plain(getattr(self, name)) for name in FIELDS}


FIELDS = tuple(name for name in Recipe.__annotations__ if name != "is_abstract")
_TYPES: Mapping[str, Any] = {name: hint for name, hint in get_type_hints(Recipe).items() if name in FIELDS}


def _evaluate(cls: type[Recipe], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FieldViolation]]:
    """Returns the value of each field, given or default, and all that is wrong."""
    values: dict[str, Any] = {}
    problems = list(_unknown(cls, given))
    for name in FIELDS:
        if name == _ARGUMENTS:
            values[name], found = _arguments(cls, given.get(name))
        else:
            declared = inspect.getattr_static(cls, name, None)
            default = declared.default if isinstance(declared, Declared) else declared
            if name in _REQUIRED and name not in given and default is None:
                found = [FieldViolation(name, "is missing; every recipe needs it")]
            else:
                values[name], found = check_field(name, given.get(name, default), declared)
        problems += found
    return values, problems


def _arguments(cls: type[Recipe], given: Any) -> tuple[TrainingArguments | None, list[FieldViolation]]:
    """Returns the arguments of a recipe with what is given put over its defaults."""
    declared = inspect.getattr_static(cls, _ARGUMENTS, None)
    declared = declared.default if isinstance(declared, Declared) else declared
    hint = get_type_hints(cls).get(_ARGUMENTS)
    if declared is None and isinstance(hint, type) and hint is not TrainingArguments:
        declared = hint
    if isinstance(declared, type) and issubclass(declared, TrainingArguments):
        declared = declared()
    if not isinstance(declared, TrainingArguments):
        problem = "is missing" if declared is None else f"is {declared!r}"
        return None, [
            FieldViolation(_ARGUMENTS, f"{problem}; give a subclass of TrainingArguments, or one of its objects")
        ]
    if given is None:
        return declared, []
    if isinstance(given, type(declared)):
        return given, []
    if not isinstance(given, Mapping):
        return declared, [FieldViolation(_ARGUMENTS, f"is not an object of {type(declared).__name__}, nor a mapping")]
    _, problems = merge(declared.parameters, {**declared.values, **given})
    return (declared, problems) if problems else (type(declared)(**{**declared.values, **given}), [])


def _unknown(cls: type[Recipe], given: Mapping[str, Any]) -> list[FieldViolation]:
    """Returns attributes and given fields that a recipe does not have, which are most likely misspelled."""
    names = [name for name in given if name not in FIELDS]
    for base in cls.__mro__:
        if base is Recipe:
            break
        names += [
            name
            for name, value in base.__dict__.items()
            if not name.startswith("_")
            and name not in FIELDS
            and name != "is_abstract"
            and not isinstance(value, FunctionType | classmethod | staticmethod | property | type)
        ]
    problems = []
    for name in dict.fromkeys(names):
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; begin it with _ when it is for the class alone"
        problems.append(FieldViolation(name, f"is no field of a recipe{hint}"))
    return problems


def _refuse_other_types(cls: type[Recipe]) -> None:
    """Refuses a field of the base that is declared with another type.

    Raises:
        RecipeError: A `TypeError` that names field, class and both types.
    """
    own = [name for name in inspect.get_annotations(cls) if name in CHECKS or name == _ARGUMENTS]
    if not own:
        return
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError, SyntaxError) as error:
        raise RecipeError(f"{cls.__name__} has a type that cannot be read: {error}", []) from None
    problems = [
        FieldViolation(
            name, f"has the type {_spelled(hints[name])} in {cls.__name__}, but {_spelled(_TYPES[name])} in Recipe"
        )
        for name in own
        if not _is_same(hints[name], _TYPES[name])
    ]
    if problems:
        raise RecipeError(f"{cls.__name__} changes the type of fields that every recipe has", problems)


def _is_same(found: Any, expected: Any) -> bool:
    if get_origin(found) or get_origin(expected):
        return get_origin(found) == get_origin(expected) and set(get_args(found)) == set(get_args(expected))
    if isinstance(found, type) and isinstance(expected, type):
        return issubclass(found, expected) and not (found is bool and expected is int)
    return bool(found == expected)


def _spelled(annotation: Any) -> str:
    is_plain = isinstance(annotation, type) and not get_args(annotation)
    return annotation.__name__ if is_plain else str(annotation)


def _plain(value: Any) -> Any:
    if isinstance(value, TrainingArguments):
        return dict(value.values)
    if isinstance(value, TrainingDataset):
        return {name: getattr(value, name) for name in ("description", "dataset_required", "dataset_name")}
    if isinstance(value, TrainingResources):
        return {"requests": dict(value.requests), "limits": dict(value.limits)}
    if isinstance(value, TrainingFramework | TrainingTask):
        return value.value
    return list(value) if isinstance(value, list) else value
