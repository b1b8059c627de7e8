"""Recipes: typed templates of runs, written by operators as Python classes; users fill in typed arguments.

    from tuneforge.recipes import Parameter, Recipe, TrainingArguments, TrainingFramework, TrainingTask

    class Arguments(TrainingArguments):
        epochs: int = Parameter(10, ge=1, description="Passes over the data.")

    class MyModel(Recipe):
        name = "MyModel"
        image = "registry.example.com/my-model:1.4.2"
        command = ["/bin/bash", "-c", "python train.py"]
        framework = TrainingFramework.PYTORCH
        task = TrainingTask.CLASSIFICATION
        training_arguments = Arguments()

`python -m tuneforge.recipes FILE` checks a file. A recipe is data: no code of it runs when a user fills it in.
"""

from tuneforge.recipes.arguments import TrainingArguments
from tuneforge.recipes.book import FoundProblem, RecipeBook
from tuneforge.recipes.description import RecipeDescription, Resolved
from tuneforge.recipes.parameters import Parameter, RecipeError
from tuneforge.recipes.recipe import Recipe
from tuneforge.recipes.values import TrainingDataset, TrainingFramework, TrainingResources, TrainingTask

__all__ = [
    "FoundProblem",
    "Parameter",
    "Recipe",
    "RecipeBook",
    "RecipeDescription",
    "RecipeError",
    "Resolved",
    "TrainingArguments",
    "TrainingDataset",
    "TrainingFramework",
    "TrainingResources",
    "TrainingTask",
]
