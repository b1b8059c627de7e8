"""A recipe as plain data: what a service keeps and sends, and what users' arguments are put into. No class, no code."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Self

from tuneforge.errors import FieldViolation
from tuneforge.recipes.arguments import PREFIX, merge
from tuneforge.recipes.checks import image_warning
from tuneforge.recipes.parameters import ParameterSpec, RecipeError
from tuneforge.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """All that a run needs."""

    arguments: Mapping[str, Any]
    """Given and defaulted."""
    command: tuple[str, ...]
    device: str
    dataset: str
    dataset_name: str
    """File or short name of the data set; empty: none."""
    accelerator_count: int
    """Of each worker; 0 on a device of kind `cpu`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeDescription:
    """All of a recipe."""

    fields: Mapping[str, Any]
    """As `Recipe.dump` gives them."""
    parameters: tuple[ParameterSpec, ...]
    """The arguments that users may set, with the recipe's own defaults."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Returns the description of a recipe."""
        values = recipe.training_arguments.values
        parameters = tuple(replace(spec, default=values[spec.name]) for spec in recipe.training_arguments.parameters)
        warning = image_warning(recipe.image)
        warnings = [*recipe.warnings(), *([warning] if warning else [])]
        return cls(fields=recipe.dump(), parameters=parameters, warnings=tuple(warnings))

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.fields["name"])

    @property
    def object_name(self) -> str:
        """The name where only `a-z 0-9 -` are taken, as in a cluster; different for different recipes."""
        return object_name(self.name)

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"Arguments of {self.name}",
            "type": "object",
            "properties": {spec.name: spec.schema() for spec in self.parameters},
            "additionalProperties": False,
        }

    @property
    def defaults(self) -> dict[str, Any]:
        """All arguments with their defaults."""
        return {spec.name: spec.default for spec in self.parameters}

    def resolve(self, arguments: Mapping[str, Any], *, device: str = "", dataset: str = "") -> Resolved:
        """Puts given arguments over the defaults and returns what a run needs.

        Args:
            arguments: Those that differ from the defaults.
            device: Kind of device; empty takes the first of the recipe.
            dataset: The data set, a path or name; empty: none.

        Raises:
            RecipeError: All that is wrong: arguments, device, data set.
        """
        values, problems = merge(self.parameters, arguments)
        kinds = self.fields["device_types"]
        device = device or kinds[0]
        if device not in kinds:
            problems.append(FieldViolation("device", f"is {device[:80]!r}; this recipe runs on {', '.join(kinds)}"))
        info = self.fields["dataset_info"]
        if info["dataset_required"] and not dataset:
            wanted = f": {info['description']}" if info["description"] else ""
            problems.append(FieldViolation("dataset", f"is not set, but this recipe requires a data set{wanted}"))
        if problems:
            raise RecipeError(f"the run of {self.name} is wrong", problems)
        return Resolved(
            arguments=values,
            command=tuple(self.command(values)),
            device=device,
            dataset=dataset,
            dataset_name=_dataset_name(dataset),
            accelerator_count=0 if device == "cpu" else self.fields["accelerator_count"],
        )

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the command with the arguments appended to its last entry, which a shell reads: all are quoted."""
        base: Sequence[str] = self.fields["command"]
        kinds = {spec.name: spec.kind for spec in self.parameters}
        flags = [f"--{_kebab(name)}" for name, value in values.items() if kinds[name] == "boolean" and value]
        flags += [
            f"--{_kebab(name)}={shlex.quote(_spelled(value))}"
            for name, value in values.items()
            if kinds[name] != "boolean" and value is not None
        ]
        flags.append(f"--dataset_path={shlex.quote(self.fields['dataset_mount'])}")
        flags.append(f"--checkpoint_path={shlex.quote(self.fields['checkpoint_mount'])}")
        return [*base[:-1], " ".join([base[-1], *flags])]

    def to_json(self) -> str:
        """Returns the description as one line."""
        parameters = [asdict(spec) for spec in self.parameters]
        return json.dumps({"fields": self.fields, "parameters": parameters, "warnings": self.warnings})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the description that `to_json` wrote."""
        content = json.loads(text)
        parameters = tuple(
            ParameterSpec(**spec | {"choices": tuple(spec["choices"])}) for spec in content["parameters"]
        )
        return cls(fields=content["fields"], parameters=parameters, warnings=tuple(content["warnings"]))


def parse_arguments(text: str) -> dict[str, Any]:
    """Returns the arguments of a JSON text; empty: none.

    Raises:
        RecipeError: It is no JSON object, has a key twice, or a number that JSON lacks.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key comes twice")
        return found

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        content = json.loads(text or "{}", object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise RecipeError("the arguments are wrong", [FieldViolation(PREFIX, f"is not JSON: {reason}")]) from None
    if not isinstance(content, dict):
        raise RecipeError("the arguments are wrong", [FieldViolation(PREFIX, "is not a JSON object")])
    return content


def object_name(name: str) -> str:
    """Returns a name of `a-z 0-9 -` for a recipe's name, at most 50 characters, different for different names."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "recipe"
    if plain == name and len(plain) <= 50:
        return plain
    return f"{plain[:41].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _spelled(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_spelled, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else str(value)


def _dataset_name(dataset: str) -> str:
    parts = dataset.split("/")
    if len(parts) == 6 and parts[0] == "projects" and parts[2] == "datasets":
        return f"{parts[3]}/{parts[5]}"
    return PurePosixPath(dataset).name
