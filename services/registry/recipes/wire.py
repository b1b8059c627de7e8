"""Descriptions of recipes to messages."""

import json

from tuneforge.recipes.book import FoundProblem
from tuneforge.recipes.description import RecipeDescription, Resolved
from tuneforge.v1 import recipes_pb2


def recipe_to_proto(description: RecipeDescription) -> recipes_pb2.Recipe:
    """Returns the message of a recipe."""
    fields = description.fields
    return recipes_pb2.Recipe(
        name=f"recipes/{description.name}",
        description=fields["description"],
        project_url=fields["project_url"],
        framework=fields["framework"],
        task=fields["task"],
        image=fields["image"],
        inference_name=fields["inference_name"] or "",
        device_types=fields["device_types"],
        resources=resources_to_proto(description, fields["accelerator_count"]),
        dataset=recipes_pb2.RecipeDataset(
            description=fields["dataset_info"]["description"],
            is_required=fields["dataset_info"]["dataset_required"],
        ),
        arguments_schema_json=json.dumps(description.schema, ensure_ascii=False),
        defaults_json=json.dumps(description.defaults, ensure_ascii=False),
        promotion_path=fields["promotion_path"],
        store_asset_patterns=fields["store_asset_patterns"],
        dataset_mount=fields["dataset_mount"],
        checkpoint_mount=fields["checkpoint_mount"],
        image_pull_secret=fields["image_pull_secret"] or "",
        warnings=description.warnings,
        object_name=description.object_name,
    )


def resources_to_proto(description: RecipeDescription, accelerator_count: int) -> recipes_pb2.RecipeResources:
    """Returns the message of what each worker is given."""
    resources = description.fields["resources"]
    return recipes_pb2.RecipeResources(
        requests={name: str(value) for name, value in resources["requests"].items()},
        limits={name: str(value) for name, value in resources["limits"].items()},
        accelerator_count=accelerator_count,
        cluster_nodes=description.fields["cluster_nodes"],
    )


def resolved_to_proto(description: RecipeDescription, resolved: Resolved) -> recipes_pb2.ResolvedRecipe:
    """Returns the message of all that a run needs."""
    return recipes_pb2.ResolvedRecipe(
        name=f"recipes/{description.name}",
        arguments_json=json.dumps(dict(resolved.arguments), ensure_ascii=False),
        command=resolved.command,
        resources=resources_to_proto(description, resolved.accelerator_count),
        image=description.fields["image"],
        device=resolved.device,
        dataset=resolved.dataset,
        dataset_name=resolved.dataset_name,
    )


def problem_to_proto(problem: FoundProblem) -> recipes_pb2.RecipeProblem:
    """Returns the message of a file or class that gave no recipe."""
    return recipes_pb2.RecipeProblem(
        file=problem.file, class_name=problem.class_name, code=problem.code, message=problem.message
    )
