"""The knobs of recipes, from the environment."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.grpckit.settings import Environment

FILE_LIMIT_S = 20.0
_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSettings:
    """Where the operator's recipes are."""

    folder: Path | None = None
    """Folder whose `*.py` are searched for recipes, except those that begin with `__`; None: none. A changed folder is
    read again. TUNEFORGE_REGISTRY_RECIPES."""
    classes: tuple[str, ...] = ()
    """Recipes registered by hand, `package.module:Class`; they come before those of the folder.
    TUNEFORGE_REGISTRY_RECIPE_CLASSES, separated by commas."""
    file_limit_s: float = FILE_LIMIT_S
    """Most seconds that one file may take to be imported, > 0. 20: one that imports a training framework takes 5.
    TUNEFORGE_REGISTRY_RECIPE_S."""

    @classmethod
    def from_env(cls, env: Environment) -> Self:
        """Reads the settings."""
        folder = env.text("TUNEFORGE_REGISTRY_RECIPES").strip()
        words = env.text("TUNEFORGE_REGISTRY_RECIPE_CLASSES").split(",")
        classes = tuple(word.strip() for word in words if word.strip())
        if not all(_CLASS.fullmatch(each) for each in classes):
            env.refuse("TUNEFORGE_REGISTRY_RECIPE_CLASSES", "package.module:Class, separated by commas")
            classes = ()
        path = env.folder("TUNEFORGE_REGISTRY_RECIPES", default=Path()) if folder else None
        if path is not None and not path.is_dir():
            env.refuse("TUNEFORGE_REGISTRY_RECIPES", "a folder that is there")
        return cls(
            folder=path,
            classes=classes,
            file_limit_s=env.seconds("TUNEFORGE_REGISTRY_RECIPE_S", default=FILE_LIMIT_S, minimum=1.0),
        )
