"""What a person means by the place of a data set: a local file or folder, a hub id, an address, a config map's key."""

import dataclasses
import enum
import re
from pathlib import Path
from typing import Final

from tuneforge.data.formats.content import stem_of
from tuneforge.data.formats.layout import FORMATS, format_of
from tuneforge.data.formats.parsed import DataFormat

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_CONFIG_MAP: Final = re.compile(r"configmap:([a-z0-9][a-z0-9.-]{0,252}):([\w.-]{1,253})")
_ADDRESS: Final = re.compile(r"(hf|https|s3|package)://\S+")


class LocationKind(enum.StrEnum):
    """Where a data set is."""

    FILE = "FILE"
    FOLDER = "FOLDER"
    HUB = "HUB"
    """`hf://owner/name`, or `owner/name` where there is no such path."""
    ADDRESS = "ADDRESS"
    """`https://`, `s3://`, `package://`: fetched by the registry."""
    CONFIG_MAP = "CONFIG_MAP"
    """`configmap:<name>:<key>`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place of a data set."""

    kind: LocationKind
    uri: str
    """The path; or the address, for a hub id with `hf://`."""
    format: DataFormat | None = None
    """Of a file; None for the others, whose files tell it."""
    config_map: str = ""
    """Name of the config map."""
    key: str = ""
    """Its key, whose suffix tells the format."""


def locate(value: str) -> Location:
    """Finds out what place is meant.

    A path that is there is meant as a path. Else an address is one, and so is `owner/name`, unless it ends like a file
    of rows.

    Raises:
        FileNotFoundError: it looks like a path, and nothing is there.
        RowFault: the file is in no format that is read.
        ValueError: it begins like a config map's key and is none.
    """
    path = Path(value)
    if value.startswith("configmap:"):
        found = _CONFIG_MAP.fullmatch(value)
        if found is None:
            raise ValueError(f"{value[:200]!r} is no key of a config map: write configmap:<name>:<key>")
        return Location(kind=LocationKind.CONFIG_MAP, uri=value, config_map=found[1], key=found[2])
    if _ADDRESS.fullmatch(value):
        kind = LocationKind.HUB if value.startswith("hf://") else LocationKind.ADDRESS
        return Location(kind=kind, uri=value)
    if path.is_dir():
        return Location(kind=LocationKind.FOLDER, uri=value)
    if path.exists():
        return Location(kind=LocationKind.FILE, uri=value, format=format_of(path))
    if _HUB_ID.fullmatch(value) and not _is_file_name(value):
        return Location(kind=LocationKind.HUB, uri=f"hf://{value}")
    raise FileNotFoundError(f"there is no file {value[:200]!r}")


def _is_file_name(value: str) -> bool:
    return Path(stem_of(value)).suffix in FORMATS


__all__ = ["Location", "LocationKind", "locate"]
