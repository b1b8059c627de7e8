"""The operator's recipes as users see them: what there is, which arguments each takes, what a run would be."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tuneforge import _wire
from tuneforge._connections import Connections
from tuneforge.v1 import recipes_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeResources:
    """What each worker of a run is given."""

    requests: Mapping[str, str]
    """Amounts by name, as Kubernetes writes them."""
    limits: Mapping[str, str]
    accelerator_count: int
    """Of each worker; 0: none."""
    cluster_nodes: int
    """Workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeInfo:
    """A typed template of a run."""

    name: str
    """As its author named it; `recipes/{name}` on the wire."""
    description: str
    project_url: str
    framework: str
    task: str
    image: str
    inference_name: str | None
    """Name of the service that serves its results; None: none."""
    device_types: tuple[str, ...]
    resources: RecipeResources
    dataset_description: str
    dataset_required: bool
    schema: Mapping[str, Any]
    """JSON Schema of the arguments."""
    defaults: Mapping[str, Any]
    promotion_path: str
    """Empty: its results cannot be promoted."""
    store_asset_patterns: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeProblem:
    """A file or class of the operator's that gave no recipe."""

    file: str
    class_name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRecipe:
    """All that a run of a recipe needs; nothing is started."""

    name: str
    arguments: Mapping[str, Any]
    """Given and defaulted."""
    command: tuple[str, ...]
    resources: RecipeResources
    image: str
    device: str
    dataset: str
    dataset_name: str


class Recipes:
    """The operator's recipes; `client.recipes`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def list(self) -> Iterator[RecipeInfo]:
        """Yields the recipes by name."""
        registry = self._connections.registry
        for page in registry.pages(registry.stub.ListRecipes, pb.ListRecipesRequest()):
            yield from map(_recipe, page.recipes)

    def problems(self) -> tuple[RecipeProblem, ...]:
        """Returns what the discovery found wrong; for operators, others get nothing."""
        registry = self._connections.registry
        page = registry.call(registry.stub.ListRecipes, pb.ListRecipesRequest(page_size=1))
        return tuple(
            RecipeProblem(file=each.file, class_name=each.class_name, code=each.code, message=each.message)
            for each in page.problems
        )

    def get(self, recipe: str) -> RecipeInfo:
        """Returns a recipe by its name."""
        registry = self._connections.registry
        return _recipe(registry.call(registry.stub.GetRecipe, pb.GetRecipeRequest(name=_name(recipe))))

    def resolve(
        self, recipe: str, arguments: Mapping[str, Any] | None = None, *, device: str = "", dataset: str = ""
    ) -> ResolvedRecipe:
        """Puts arguments over a recipe's defaults and returns what a run would be.

        Args:
            recipe: Name of the recipe.
            arguments: Those that differ from the defaults.
            device: Kind of device; empty takes the first of the recipe.
            dataset: The data set; empty: none.

        Raises:
            InvalidArgument: `fields` lists all that is wrong.
        """
        registry = self._connections.registry
        request = pb.ResolveRecipeRequest(
            name=_name(recipe), arguments_json=json.dumps(dict(arguments or {})), device=device, dataset=dataset
        )
        answer = registry.call(registry.stub.ResolveRecipe, request)
        return ResolvedRecipe(
            name=answer.name.partition("/")[2],
            arguments=MappingProxyType(json.loads(answer.arguments_json)),
            command=tuple(answer.command),
            resources=_resources(answer.resources),
            image=answer.image,
            device=answer.device,
            dataset=answer.dataset,
            dataset_name=answer.dataset_name,
        )


def _name(recipe: str) -> str:
    return recipe if recipe.startswith("recipes/") else f"recipes/{recipe}"


def _recipe(message: pb.Recipe) -> RecipeInfo:
    return RecipeInfo(
        name=message.name.partition("/")[2],
        description=message.description,
        project_url=message.project_url,
        framework=message.framework,
        task=message.task,
        image=message.image,
        inference_name=message.inference_name or None,
        device_types=tuple(message.device_types),
        resources=_resources(message.resources),
        dataset_description=message.dataset.description,
        dataset_required=message.dataset.is_required,
        schema=MappingProxyType(json.loads(message.arguments_schema_json)),
        defaults=MappingProxyType(json.loads(message.defaults_json)),
        promotion_path=message.promotion_path,
        store_asset_patterns=tuple(message.store_asset_patterns),
        warnings=tuple(message.warnings),
    )


def _resources(message: pb.RecipeResources) -> RecipeResources:
    return RecipeResources(
        requests=_wire.frozen(message.requests),
        limits=_wire.frozen(message.limits),
        accelerator_count=message.accelerator_count,
        cluster_nodes=message.cluster_nodes,
    )
