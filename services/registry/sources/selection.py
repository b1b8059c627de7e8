"""Which of the files at a place become those of a version. Pure."""

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from services.registry.sources.faults import Code, SourceFault
from services.registry.sources.wanted import Entry, Wanted
from tuneforge.data.formats.card import part_of
from tuneforge.data.formats.content import stem_of
from tuneforge.data.formats.layout import FORMATS, PARTS
from tuneforge.manifest import InvalidManifest, check_path

MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
"""Weights, configurations, tokenizers, chat templates: what an import of a folder takes too."""
_COMPANIONS = frozenset({"dataset_info.json", "state.json", "dataset_dict.json"})
"""What a saved data set has beside its rows, and its readers look at."""
_ABOUT = frozenset({"readme", "license", "licence", "notice", "changelog", "citation"})
ALL_SPLITS = "*"


def choose(entries: Iterable[Entry], wanted: Wanted) -> list[Entry]:
    """Returns the files that are taken, by path.

    Raises:
        SourceFault: NOT_FOUND: none fits. TOO_LARGE: too many files or bytes. NOT_ALLOWED: a name leaves its place.
    """
    found = list(entries)
    fitting = [entry for entry in found if _fits(entry.path, wanted)]
    if wanted.kind == "dataset":
        fitting = _of_split(fitting, wanted.split)
    if not fitting:
        kinds = "safetensors weights and JSON" if wanted.kind == "model" else ", ".join(FORMATS)
        patterns = f" that match {', '.join(wanted.include)}" if wanted.include else ""
        raise SourceFault(Code.NOT_FOUND, f"none of the {len(found)} files there is one of {kinds}{patterns}")
    for entry in fitting:
        try:
            check_path(entry.path)
        except InvalidManifest as error:
            raise SourceFault(Code.NOT_ALLOWED, f"the place has a file that cannot be stored: {error}") from None
    if wanted.most_files and len(fitting) > wanted.most_files:
        raise SourceFault(Code.TOO_LARGE, f"{len(fitting)} files are there; at most {wanted.most_files} are taken")
    check_size(sum(entry.size_bytes for entry in fitting), wanted.largest_bytes)
    return sorted(fitting, key=lambda entry: entry.path.encode())


def check_size(size_bytes: int, largest_bytes: int) -> None:
    """Refuses more bytes than the operator allows.

    Raises:
        SourceFault: TOO_LARGE.
    """
    if largest_bytes and size_bytes > largest_bytes:
        raise SourceFault(Code.TOO_LARGE, f"it has {size_bytes} bytes or more; at most {largest_bytes} are taken")


def _fits(path: str, wanted: Wanted) -> bool:
    name = PurePosixPath(path)
    if any(part.startswith(".") for part in name.parts):
        return False
    if wanted.kind == "model":
        is_kind = "/" not in path and name.suffix.lower() in MODEL_SUFFIXES
    else:
        is_kind = _has_rows(path) or _is_companion(path)
    return is_kind and (not wanted.include or any(fnmatch.fnmatchcase(path, pattern) for pattern in wanted.include))


def _has_rows(path: str) -> bool:
    stem = PurePosixPath(stem_of(PurePosixPath(path).name))
    return stem.suffix in FORMATS and stem.stem not in _ABOUT and not _is_companion(path)


def _is_companion(path: str) -> bool:
    return PurePosixPath(path).name.lower() in _COMPANIONS


def _of_split(entries: Sequence[Entry], split: str) -> list[Entry]:
    """Returns the files of one split: the one asked for, else `train`, else the first by name, else all."""
    there = sorted({part_of(entry.path) for entry in entries if _has_rows(entry.path)} - {""})
    asked = PARTS.get(split.lower(), split)
    if split and split != ALL_SPLITS and asked not in there:
        known = f"; there are {', '.join(there)}" if there else "; its files name none"
        raise SourceFault(Code.NOT_FOUND, f"there is no split {split[:80]!r}{known}")
    if split == ALL_SPLITS or not there:
        chosen = list(entries)
    else:
        one = asked or ("train" if "train" in there else there[0])
        chosen = [
            entry
            for entry in entries
            if part_of(entry.path) == one or (_is_companion(entry.path) and not part_of(entry.path))
        ]
    return chosen if any(_has_rows(entry.path) for entry in chosen) else []
