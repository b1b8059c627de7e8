"""Which files belong to a configuration of a data set, as its card says: the YAML above a `README.md`, as on the hub.

`configs` lists configurations with the patterns of their files, by split:

    configs:
      - config_name: en
        data_files:
          - {split: train, path: "en/train-*"}
          - {split: test, path: [en/test.csv]}

Every value is read as a text: no tag, number or merge key means anything here, and no anchor from above is known.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tuneforge.data.formats.layout import PARTS

CARD: Final = "README.md"
LARGEST_CARD_BYTES: Final = 4 * 2**20
_FRONT: Final = re.compile(r"\A\ufeff?---[ \t\r]*\n(.*?)\n---[ \t\r]*(?:\n|\Z)", re.DOTALL)
_BLOCK: Final = re.compile(r"^configs:.*(?:\n(?:[ \t#-].*)?$)*", re.MULTILINE)
"""The key alone: the rest of a card may be long."""
_WORD: Final = re.compile(r"[^a-z]+")
_SIGNS: Final = re.compile(r"(\*\*/|\*\*|\*|\?)")
_MOST_PATTERNS: Final = 1000
_LONGEST_PATTERN: Final = 1000


class CardFault(ValueError):
    """The card cannot be read, or does not say which files are meant."""


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration."""

    name: str
    is_default: bool
    splits: tuple[tuple[str, tuple[str, ...]], ...]
    """Split -> patterns of its files, in the card's order."""


def choose_files(card: str, paths: Sequence[str], *, config: str = "", split: str = "") -> dict[str, str] | None:
    """Returns path -> split of the files that are taken; None where the card names no configurations.

    Args:
        card: Text of the card.
        paths: All files of the data set.
        config: Name of the configuration; empty: the only one, `default`, or the one that says that it is.
        split: Name of a split; empty: `train`, else the first; `*`: all.

    Raises:
        CardFault: No such configuration or split, several without a default, or files whose names contradict the card.
    """
    configs = read_configs(card)
    if not configs:
        if config:
            raise CardFault(f"there is no configuration {config[:80]!r}: the card names none")
        return None
    found = _chosen(configs, config)
    taken = {path: name for path in sorted(paths) if (name := _split_of(found, path)) is not None}
    if split != "*":
        wanted = _wanted_split(found, split)
        taken = {path: name for path, name in taken.items() if name == wanted}
    if not taken:
        raise CardFault(f"no file fits the patterns of the configuration {found.name!r}")
    _check_names(taken)
    return taken


def read_configs(card: str) -> tuple[Config, ...]:
    """Returns the configurations of a card; none where it has none.

    Raises:
        CardFault: They are malformed.
    """
    front = _FRONT.match(card)
    block = front and _BLOCK.search(front.group(1))
    if not block:
        return ()
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise CardFault("its card names configurations, which need a package to be read: pip install pyyaml") from None
    try:
        # The binding to C would end the process over brackets without end.
        content = yaml.load(block.group(), Loader=yaml.BaseLoader)  # noqa: S506 - gives texts, lists and objects only
        return tuple(_config(each) for each in content["configs"])
    except (yaml.YAMLError, RecursionError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CardFault):
            raise
        raise CardFault("the configurations in its card cannot be read: they are no list of objects in YAML") from None


def part_of(name: str) -> str:
    """Returns the part that a split's or a file's name tells, `train`, `validation` or `test`; empty: none."""
    words = [PARTS[word] for word in _WORD.split(name.lower()) if word in PARTS]
    return words[-1] if words else ""


def _config(entry: Any) -> Config:
    if not isinstance(entry, Mapping):
        raise CardFault("a configuration in its card is no object")
    name, folder = entry.get("config_name", "default"), entry.get("data_dir", "")
    if not isinstance(name, str) or not isinstance(folder, str):
        raise CardFault("a configuration in its card has a `config_name` or `data_dir` that is no text")
    folder = folder.removeprefix("./").strip("/")
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    splits = tuple((split, tuple(prefix + each for each in patterns)) for split, patterns in _files(entry, name))
    patterns = [pattern for _, patterns in splits for pattern in patterns]
    if len(patterns) > _MOST_PATTERNS or any(len(pattern) > _LONGEST_PATTERN for pattern in patterns):
        limits = f"{_MOST_PATTERNS} patterns of {_LONGEST_PATTERN} characters"
        raise CardFault(f"the configuration {name[:80]!r} in its card has more than {limits}")
    return Config(name, entry.get("default") in ("true", "True"), splits)


def _files(entry: Mapping[str, Any], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields split -> patterns of the `data_files` of a configuration, in each of the forms that they have."""
    files = entry.get("data_files", "**")
    for each in files if isinstance(files, list) else [files]:
        split, paths = (each.get("split"), each.get("path")) if isinstance(each, Mapping) else ("train", each)
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(split, str) or not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
            raise CardFault(f"the configuration {name[:80]!r} in its card has `data_files` without `split` and `path`")
        yield split, tuple(one.removeprefix("./") for one in paths)


def _chosen(configs: Sequence[Config], name: str) -> Config:
    names = [each.name for each in configs]
    listed = ", ".join(names[:50]) + (", ..." if len(names) > 50 else "")
    if name:
        found = [each for each in configs if each.name == name]
        problem = f"there is no configuration {name[:80]!r}; there are {listed}"
    else:
        found = [each for each in configs if each.is_default] or [each for each in configs if each.name == "default"]
        found = found or list(configs if len(configs) == 1 else ())
        problem = f"it has several configurations, and none is the default: choose one of {listed}"
    if not found:
        raise CardFault(problem)
    return found[0]


def _wanted_split(config: Config, split: str) -> str:
    names = list(dict.fromkeys(name for name, _ in config.splits))
    wanted = split or ("train" if "train" in names else "")
    same = [name for name in names if name == wanted] or [
        name for name in names if part_of(name) == PARTS.get(wanted.lower() or "train")
    ]
    if split and not same:
        known = ", ".join(names)
        raise CardFault(f"there is no split {split[:80]!r} in the configuration {config.name!r}; there are {known}")
    return (same or names)[0]


def _split_of(config: Config, path: str) -> str | None:
    return next((name for name, patterns in config.splits if any(_fits(path, each) for each in patterns)), None)


def _fits(path: str, pattern: str) -> bool:
    """Tells whether a path fits a pattern in which `*` ends at a slash and `**` does not.

    Places of the path that the pattern so far may end at are carried along: no pattern makes this walk back.
    """
    places = {0}
    for part in _SIGNS.split(pattern):
        if not places:
            return False
        match part:
            case "**/":
                places |= {at + 1 for at in range(min(places), len(path)) if path[at] == "/"}
            case "**":
                places = set(range(min(places), len(path) + 1))
            case "*":
                places = set(_within_names(path, places))
            case "?":
                places = {at + 1 for at in places if at < len(path) and path[at] != "/"}
            case _:
                places = {at + len(part) for at in places if path.startswith(part, at)}
    return len(path) in places


def _within_names(path: str, places: set[int]) -> Iterator[int]:
    """Yields the places that can be reached from some without crossing a slash."""
    is_reached = False
    for at in range(min(places), len(path) + 1):
        is_reached = at in places or (is_reached and path[at - 1] != "/")
        if is_reached:
            yield at


def _check_names(taken: Mapping[str, str]) -> None:
    """Refuses files that the card gives to one split and their names to another: names divide a version's rows."""
    is_divided = len(set(taken.values())) > 1
    for split in set(taken.values()):
        named = {path: part_of(path) for path, name in taken.items() if name == split}
        parts = set(named.values())
        if len(parts) > 1 or (is_divided and parts != {part_of(split)}):
            path = next(iter(named))
            problem = (
                f"its card says that {path[:200]!r} is of the split {split[:80]!r}, which the file's name does not"
            )
            raise CardFault(f"{problem}: take one split at a time, or rename the files")
