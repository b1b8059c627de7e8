"""Checks a file of recipes: `python -m tuneforge.recipes path/to/file.py`."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from tuneforge.recipes.book import RecipeBook, recipe_files
from tuneforge.recipes.description import RecipeDescription


def check(path: Path) -> tuple[list[str], list[str]]:
    """Returns what is to be said of a file or folder of recipes: (lines on what was found, problems)."""
    book = RecipeBook()
    files = recipe_files(path) if path.is_dir() else [path]
    for file in files:
        book.discover_file(file)
    lines = [line for description in book.recipes.values() for line in _told(description)]
    problems = [f"{each.file} {each.class_name}".rstrip() + f": {each.message}" for each in book.problems]
    if not book.recipes and not problems:
        problems.append(f"{path} has no recipe: write a subclass of tuneforge.recipes.Recipe")
    return lines, problems


def _told(description: RecipeDescription) -> Iterator[str]:
    yield f"recipe {description.name}"
    for name, value in description.fields.items():
        yield f"  {name}: {json.dumps(value, ensure_ascii=False)}"
    yield f"command with the defaults: {json.dumps(description.command(description.defaults), ensure_ascii=False)}"
    yield f"schema of the arguments: {json.dumps(description.schema, ensure_ascii=False, indent=2)}"
    for warning in description.warnings:
        yield f"warning: {warning}"


def main(arguments: list[str]) -> int:
    """Checks the files that are named; returns the exit code: 0 when all are recipes."""
    if not arguments:
        sys.stderr.write("usage: python -m tuneforge.recipes PATH...\n")
        return 2
    # The book logs each problem too, and a logger without a handler writes to stderr.
    logging.getLogger("tuneforge.recipes").addHandler(logging.NullHandler())
    code = 0
    for argument in arguments:
        path = Path(argument)
        if not path.exists():
            sys.stderr.write(f"{argument}: there is no such file\n")
            code = 1
            continue
        lines, problems = check(path)
        sys.stdout.write("".join(line + "\n" for line in lines))
        sys.stderr.write("".join(problem + "\n" for problem in problems))
        code = 1 if problems else code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
