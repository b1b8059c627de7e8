"""The recipes that the registry serves: each file is read by a child process, and again when the folder changes."""

import asyncio
import contextlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from services.grpckit.logging import get_logger
from services.registry.child_process import Child, inherited, started
from services.registry.recipes.settings import RecipeSettings
from tuneforge.recipes.book import BROKEN_FILE, FoundProblem, RecipeBook, recipe_files
from tuneforge.recipes.description import RecipeDescription

_log = get_logger(__name__)
_WORKER = "services.registry.recipes.worker"
_AT_ONCE = 2
"""Files read at once; the registry has other things to do."""

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one file or class gave: recipes with the names of their classes, and problems."""

    recipes: list[tuple[RecipeDescription, str]] = field(default_factory=list)
    problems: list[FoundProblem] = field(default_factory=list)


class RecipeShelf:
    """The operator's recipes by name.

    Args:
        settings: Where they are.
    """

    def __init__(self, settings: RecipeSettings) -> None:
        self._settings = settings
        self._seen: Fingerprint | None = None
        self._book = RecipeBook()
        self._reading: asyncio.Task[None] | None = None

    async def book(self) -> RecipeBook:
        """Returns the recipes and problems as the folder is now; calls while it is read wait for one reading."""
        if self._reading is None:
            seen = await asyncio.to_thread(self._fingerprint)
            if seen == self._seen:
                return self._book
        if self._reading is None:  # nobody began meanwhile
            self._reading = asyncio.create_task(self._renew(seen))
        await asyncio.shield(self._reading)  # a caller that leaves does not end it for the others
        return self._book

    async def close(self) -> None:
        """Ends a reading that runs."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _renew(self, seen: Fingerprint) -> None:
        try:
            self._book = await self._read()
            self._seen = seen
        finally:
            self._reading = None

    def _files(self) -> list[Path]:
        return recipe_files(self._settings.folder) if self._settings.folder is not None else []

    def _fingerprint(self) -> Fingerprint:
        found = []
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # removed a moment ago: the next look knows
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
        return tuple(found)

    async def _read(self) -> RecipeBook:
        slots = asyncio.Semaphore(_AT_ONCE)
        places = [("class", each) for each in self._settings.classes]
        places += [("file", str(path)) for path in await asyncio.to_thread(self._files)]

        async def look(kind: str, place: str) -> _Found:
            async with slots:
                return await self._look(kind, place)

        found = await asyncio.gather(*(look(kind, place) for kind, place in places))
        book = RecipeBook()
        for (kind, place), each in zip(places, found, strict=True):
            _put(book, each, file=Path(place).name if kind == "file" else "")
        return book

    async def _look(self, kind: str, place: str) -> _Found:
        """Has one file or class described by a child process."""
        name = Path(place).name if kind == "file" else place
        _log.debug("reading recipes", file=name)
        limit_s = self._settings.file_limit_s
        child = Child(
            module=_WORKER,
            arguments=(kind, place, str(math.ceil(limit_s))),
            environment=inherited("LANG", "LC_ALL", "VIRTUAL_ENV"),
            is_at_home=False,  # recipes may need what the operator has put beside the registry
            is_heard=False,
        )
        try:
            async with started(child) as running, asyncio.timeout(limit_s):
                output, end = await running.answer(b"")
        except TimeoutError:
            message = f"is not imported within {limit_s:g} seconds; move what takes long out of the import"
            return _Found(problems=[FoundProblem(file=name, class_name="", code="TIMEOUT", message=message)])
        return _read_lines(output.decode("utf-8", "replace").splitlines(), name, end.code)


def _read_lines(lines: Iterable[str], name: str, code: int | None) -> _Found:
    found = _Found()
    for line in lines:
        content = json.loads(line)
        if "recipe" in content:
            found.recipes.append((RecipeDescription.from_json(content["recipe"]), content["class_name"]))
        elif "problem" in content:
            found.problems.append(FoundProblem(**content["problem"]))
        else:
            return found
    message = f"ended the process that imported it (code {code}); it must only define recipes"
    found.problems.append(FoundProblem(file=name, class_name="", code=BROKEN_FILE, message=message))
    return found


def _put(book: RecipeBook, found: _Found, *, file: str) -> None:
    """Adds what one file gave, in the operator's log too: what was registered, what was not and why."""
    book.problems += found.problems
    for description, class_name in found.recipes:
        book.add(description, class_name=class_name, file=file)  # it logs itself what it takes and what it does not
    if not found.recipes and not found.problems:
        _log.debug("file without recipes", file=file)
    for problem in found.problems:
        _log.warning(
            "recipe not registered",
            file=problem.file,
            class_name=problem.class_name,
            code=problem.code,
            problem=problem.message,
        )
