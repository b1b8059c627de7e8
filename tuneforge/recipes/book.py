"""The recipes of one operator: registered by hand or found in a folder; the first of a name wins, all else is told."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tuneforge.recipes.description import RecipeDescription
from tuneforge.recipes.parameters import RecipeError
from tuneforge.recipes.recipe import Recipe

_log = logging.getLogger(__name__)

BROKEN_FILE = "BROKEN_FILE"
INVALID_RECIPE = "INVALID_RECIPE"
DUPLICATE_NAME = "DUPLICATE_NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProblem:
    """A file or class that gave no recipe."""

    file: str
    """Its name; empty for a class that was registered by hand."""
    class_name: str
    """Empty when the whole file is concerned."""
    code: str
    """BROKEN_FILE, INVALID_RECIPE, DUPLICATE_NAME or TIMEOUT."""
    message: str


class RecipeBook:
    """Recipes by name."""

    def __init__(self) -> None:
        self.recipes: dict[str, RecipeDescription] = {}
        self.problems: list[FoundProblem] = []
        self._places: dict[str, str] = {}

    def register(self, recipe: type[Recipe], *, file: str = "") -> RecipeDescription | None:
        """Adds a recipe class; a wrong one or a second of its name is noted in `problems`.

        Args:
            recipe: The class.
            file: Where it was found; empty: registered by hand.

        Returns:
            Its description; None when it was not added.
        """
        try:
            description = RecipeDescription.of(recipe())
        except RecipeError as error:
            message = "; ".join(f"{each.field} {each.description}" for each in error.problems) or error.what
            self._note(FoundProblem(file=file, class_name=recipe.__name__, code=INVALID_RECIPE, message=message))
            return None
        return self.add(description, class_name=recipe.__name__, file=file)

    def add(self, description: RecipeDescription, *, class_name: str, file: str) -> RecipeDescription | None:
        """Adds a described recipe, unless there is one of its name."""
        name = description.name
        if name in self.recipes:
            message = f"the name {name!r} is taken by {self._places[name]}, which came first; give another name"
            self._note(FoundProblem(file=file, class_name=class_name, code=DUPLICATE_NAME, message=message))
            return None
        self.recipes[name] = description
        self._places[name] = f"{class_name} in {file}" if file else class_name
        _log.debug("registered the recipe %s, %s", name, self._places[name])
        return description

    def discover(self, folder: Path) -> None:
        """Registers the recipes of all files of a folder, in this process; a broken file stops no other."""
        for path in recipe_files(folder):
            self.discover_file(path)

    def discover_file(self, path: Path) -> None:
        """Registers the recipes of one file, in this process."""
        _log.debug("reading %s", path.name)
        try:
            module = load_module(path)
        except Exception as error:  # noqa: BLE001 - whatever a file does when it is imported, the others are not hurt
            message = f"cannot be imported: {type(error).__name__}: {error}"
            self._note(FoundProblem(file=path.name, class_name="", code=BROKEN_FILE, message=message))
            return
        found = list(recipes_of(module))
        if not found:
            _log.debug("%s has no recipe", path.name)
        for recipe in found:
            _log.debug("found %s in %s", recipe.__name__, path.name)
            self.register(recipe, file=path.name)

    def _note(self, problem: FoundProblem) -> None:
        self.problems.append(problem)
        where = f"{problem.file} {problem.class_name}".strip()
        _log.warning("%s: %s: %s", where, problem.code, problem.message)


def recipe_files(folder: Path) -> list[Path]:
    """Returns the files of a folder that may have recipes: `*.py` that do not begin with `__`, by name."""
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("__") and path.is_file())


def recipes_of(module: ModuleType) -> Iterator[type[Recipe]]:
    """Yields the recipe classes that a module defines itself, in order."""
    for value in list(vars(module).values()):
        is_recipe = isinstance(value, type) and issubclass(value, Recipe) and value is not Recipe
        if is_recipe and value.__module__ == module.__name__ and not value.is_abstract:
            yield value


def load_module(path: Path) -> ModuleType:
    """Imports a file; modules beside it can be imported by it.

    Raises:
        Exception: Whatever the file raises.
    """
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
