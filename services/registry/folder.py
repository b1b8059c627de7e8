"""The files of a version as those see them that examine it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a version: path in the manifest -> where its blob lies."""

    paths: Mapping[str, Path]

    def __contains__(self, name: str) -> bool:
        return name in self.paths
