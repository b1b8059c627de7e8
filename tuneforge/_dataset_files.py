"""Which files an upload of a data set is made of, and what is wrong with their rows before a byte is sent."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tuneforge.errors import FieldViolation, InvalidArgument, Reason

if TYPE_CHECKING:
    from tuneforge.data.examination import Examination
    from tuneforge.data.problems import RowProblem

PROBLEMS_SHOWN: Final = 20
_FORMATS: Final = "Give JSONL, JSON, CSV, Parquet, Arrow or text files, or a folder of these or of images."


def files_of(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, config: str = "") -> dict[str, Path]:
    """Returns path in the data set -> local file.

    Args:
        path: a file; files with different names; or a folder, whose files keep their paths within it.
        config: of a folder whose card names configurations: which to take; empty: the default one.

    Raises:
        InvalidArgument: something is missing, no regular file, leads out of the folder, or comes twice; the card's
            configurations do not say which files are meant.
    """
    paths = [Path(path)] if isinstance(path, str | os.PathLike) else [Path(each) for each in path]
    if len(paths) == 1 and paths[0].is_dir():
        return _of_config(paths[0], _files_of_folder(paths[0]), config)
    if config:
        message, cure = f"a configuration ({config[:80]!r}) is one of a folder", "Give the folder that has its card."
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=cure)
    for each in paths:
        if not each.is_file():
            raise InvalidArgument(Reason.INVALID_FIELD, f"{str(each)!r} is not a file", cure=_cure_of(path))
    if len({each.name for each in paths}) != len(paths):
        message = "two of the files have the same name, which the version keeps"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Rename one of them, or give the folder.")
    return {each.name: each for each in paths}


def _cure_of(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> str:
    """Returns what to do about a file that is not there: perhaps another place is meant."""
    from tuneforge.data.locations import LocationKind, locate
    from tuneforge.data.problems import RowFault

    given = str(path) if isinstance(path, str | os.PathLike) else ""
    given = given.replace(":/", "://", 1) if ":/" in given and "://" not in given else given  # as Path writes it
    try:
        place = locate(given)
    except (ValueError, OSError, RowFault):
        return _FORMATS
    if place.kind in {LocationKind.HUB, LocationKind.ADDRESS}:
        return f"To have the registry fetch it: tuneforge datasets import {place.uri} --dataset ID."
    return _FORMATS


def _files_of_folder(folder: Path) -> dict[str, Path]:
    """Returns the files that hold rows, and those that tell which files do; hidden files stay behind."""
    from tuneforge.data.formats.layout import is_passed_over

    root = folder.resolve()
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(place, name)
            path = file.relative_to(folder).as_posix()
            if is_passed_over(path):
                continue
            if not file.is_file() or not file.resolve().is_relative_to(root):
                message = f"{str(file)!r} is no regular file of this folder"
                raise InvalidArgument(Reason.INVALID_FIELD, message, cure="Put the file itself there, or remove it.")
            found[path] = file
    if not found:
        message = f"there is no file with rows in {str(folder)!r}"
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=_FORMATS)
    return found


def _of_config(folder: Path, files: dict[str, Path], config: str) -> dict[str, Path]:
    """Returns the files of a configuration, where the folder's card names some; all splits of it."""
    from tuneforge.data.formats.card import CARD, LARGEST_CARD_BYTES, CardFault, choose_files

    card = folder / CARD
    text = ""
    if card.is_file():
        with card.open(encoding="utf-8", errors="replace") as opened:
            text = opened.read(LARGEST_CARD_BYTES)
    try:
        chosen = choose_files(text, list(files), config=config, split="*")
    except CardFault as fault:
        cure = "Name a configuration that there is, or give its files by themselves."
        raise InvalidArgument(Reason.INVALID_FIELD, f"{str(folder)!r}: {fault}", cure=cure) from None
    return files if chosen is None else {path: file for path, file in files.items() if path in chosen}


def check_rows(files: Mapping[str, Path], validation_ratio: float, seed: int) -> None:
    """Reads all rows; does nothing where a package is missing that they need, since the registry checks too.

    Raises:
        InvalidArgument: rows are malformed; `fields` lists the first 20.
    """
    from tuneforge.data.examination import examine
    from tuneforge.data.split import LARGEST_RATIO, Split

    if not 0 <= validation_ratio <= LARGEST_RATIO or not 0 <= seed < 2**63:
        message = f"validation_ratio is {validation_ratio:g} and seed {seed}"
        cure = f"Give a ratio of 0 (none) to {LARGEST_RATIO} and a seed of 0 to 2**63 - 1."
        raise InvalidArgument(Reason.INVALID_FIELD, message, cure=cure)
    try:
        found = examine(files, split=Split(validation_ratio=validation_ratio, seed=seed))
    except ImportError:  # an extra is not installed: the registry alone checks
        return
    if found.num_errors:
        raise _malformed(files, found)


def _malformed(files: Mapping[str, Path], found: "Examination") -> InvalidArgument:
    named = str(next(iter(files.values()))) if len(files) == 1 else f"{len(files)} files"
    if len(files) == 1 and found.counts.keys() == {"DATASET_EMPTY"}:
        message = f"{named!r} is empty: {found.errors[0].cure[0].lower()}{found.errors[0].cure[1:].rstrip('.')}"
        return InvalidArgument(Reason.INVALID_DATA, message, cure="Nothing was uploaded.")
    total = found.num_errors
    return InvalidArgument(
        Reason.INVALID_DATA,
        f"{total} of the rows in {named} {'is' if total == 1 else 'are'} malformed",
        cure="Correct the lines that are listed; nothing was uploaded.",
        fields=tuple(_violation(problem) for problem in found.errors[:PROBLEMS_SHOWN]),
    )


def _violation(problem: "RowProblem") -> FieldViolation:
    place = f"{problem.file}:{problem.line}" if problem.line else problem.file or "rows"
    shown = f" There stands: `{problem.excerpt}`" if problem.excerpt else ""
    description = f"{problem.message} {problem.cure}{shown}"
    return FieldViolation(f"{place} {problem.field}".rstrip(), description, problem.code)
