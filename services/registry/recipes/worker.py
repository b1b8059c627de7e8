"""The child process that imports one file of recipes and describes what it found, one line of JSON each, on stdout.

The file is the operator's and may do anything when it is imported: hang, crash, take memory. It does so here.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.registry.child_limits import set_limits
from tuneforge.recipes.book import BROKEN_FILE, FoundProblem, RecipeBook, load_module, recipes_of
from tuneforge.recipes.recipe import Recipe

_MEMORY_BYTES = 16 * 1024**3
"""Address space: a file that imports a training framework takes several GiB of it."""


def main(kind: str, place: str, limit_s: int) -> int:
    """Describes what is at a place.

    Args:
        kind: `file`: `place` is the path of a file. `class`: it is `package.module:Class`, registered by hand.
        place: Where.
        limit_s: Most seconds of CPU time.
    """
    set_limits(memory_bytes=_MEMORY_BYTES, cpu_s=limit_s)
    # What the file prints is not ours to read: our lines go to a copy of stdout, its own go nowhere.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    file = Path(place).name if kind == "file" else ""

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")

    find: Callable[[], list[type[Recipe]]] = (
        (lambda: list(recipes_of(load_module(Path(place))))) if kind == "file" else (lambda: [_named(place)])
    )
    try:
        found = find()
    except BaseException as error:  # noqa: BLE001 - SystemExit as well: whatever a file does at import is told, not done
        message = f"cannot be imported: {type(error).__name__}: {str(error)[:500]}"
        say(problem=asdict(FoundProblem(file=file, class_name="", code=BROKEN_FILE, message=message)))
        found = []
    for recipe in found:
        book = RecipeBook()
        description = book.register(recipe, file=file)
        if description is not None:
            say(recipe=description.to_json(), class_name=recipe.__name__)
        for problem in book.problems:
            say(problem=asdict(problem))
    say(done=True)
    answers.flush()
    os._exit(0)  # threads and exit handlers of the file are not waited for


def _named(place: str) -> type[Recipe]:
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise TypeError(f"{place} is no subclass of tuneforge.recipes.Recipe")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
