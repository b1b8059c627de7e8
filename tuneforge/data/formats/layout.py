"""Which files of a data set hold rows, in what format, and which part of the data (train, validation, test) they are.

Names decide: suffixes for the format, words in names and folders for the part, as on the Hugging Face hub. Files that
come along without rows (a README, `dataset_info.json`) are passed over; what may be rows in a format that is not read
is a fault.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tuneforge.data.formats.content import check_regular, stem_of
from tuneforge.data.formats.parsed import DataFile, DataFormat, Limits
from tuneforge.data.formats.remarks import remark
from tuneforge.data.problems import ProblemCode, RowFault

FORMATS: Final = {
    ".jsonl": DataFormat.JSONL,
    ".ndjson": DataFormat.JSONL,
    ".json": DataFormat.JSON,
    ".csv": DataFormat.CSV,
    ".tsv": DataFormat.CSV,
    ".parquet": DataFormat.PARQUET,
    ".arrow": DataFormat.ARROW,
    ".txt": DataFormat.TEXT,
    ".text": DataFormat.TEXT,
    ".md": DataFormat.TEXT,
    ".png": DataFormat.IMAGES,
    ".jpg": DataFormat.IMAGES,
    ".jpeg": DataFormat.IMAGES,
    ".webp": DataFormat.IMAGES,
    ".gif": DataFormat.IMAGES,
    ".bmp": DataFormat.IMAGES,
}
_READ: Final = "JSONL, JSON, CSV, Parquet, Arrow, plain text and images are read."
_COMPANIONS: Final = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "readme.md", "readme.txt", "readme"}
    | {"license", "license.txt", "license.md", "thumbs.db", "changelog.md", "citation.cff"}
)
_NEEDED: Final = frozenset({"state.json", "dataset_info.json"})
"""Companions that go with the rows: one names the Arrow files that count."""
_NO_ROWS: Final = frozenset(
    {".py", ".pkl", ".pickle", ".pt", ".pth", ".bin", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".npy"}
    | {".npz", ".h5", ".safetensors", ".exe", ".so", ".dll", ".pdf", ".docx", ".xlsx", ".xls", ".html", ".yaml", ".yml"}
    | {".mp3", ".wav", ".flac", ".mp4", ".sqlite", ".db", ".lock", ".tif", ".tiff", ".svg"}
)
PARTS: Final = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
}
_WORDS: Final = re.compile(r"[^a-z]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A file that holds rows."""

    file: DataFile
    format: DataFormat
    part: str
    """`train`, `validation`, `test`, or empty where the data set is not divided."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """The files of a data set, in the order in which they are read."""

    sources: tuple[Source, ...]
    gallery: dict[str, DataFile]
    """Images by their path, where a table tells their labels."""
    remarks: tuple[tuple[DataFile, RowFault], ...]
    """Files that are passed over, and files that are refused."""

    @property
    def format(self) -> DataFormat | None:
        """The format of the first file with rows; None without any."""
        return self.sources[0].format if self.sources else None


def lay_out(files: Sequence[DataFile], limits: Limits) -> Layout:
    """Sorts out the files of a data set.

    Raises:
        RowFault: there are too many files.
    """
    if len(files) > limits.files:
        message = f"There are {len(files)} files; at most {limits.files} are taken."
        raise RowFault(ProblemCode.UNKNOWN_FORMAT, message, "Put the rows into fewer files.")
    ordered = sorted(files, key=lambda file: file.path)
    states = dict(_states(ordered))
    remarks: list[tuple[DataFile, RowFault]] = []
    found: list[tuple[DataFile, DataFormat]] = []
    for file in ordered:
        try:
            found.append((file, _format_of(file, states)))
        except RowFault as fault:
            remarks.append((file, fault))
    gallery = {}
    if any(kind is not DataFormat.IMAGES for _, kind in found):
        gallery = {file.path: file for file, kind in found if kind is DataFormat.IMAGES}
        found = [(file, kind) for file, kind in found if kind is not DataFormat.IMAGES]
    return Layout(_divided(found), gallery, tuple(remarks))


def is_passed_over(path: str) -> bool:
    """Tells whether a file of a folder holds neither rows nor which files do: a README, a hidden file."""
    folder, _, name = path.rpartition("/")
    if name in _NEEDED:
        return False
    return stem_of(name) in _COMPANIONS or name.startswith((".", "_")) or "/." in f"/{folder}"


def format_of(path: Path) -> DataFormat:
    """Returns the format of a file by its suffix, else by how it begins.

    Raises:
        RowFault: it is missing, no regular file, or in no format that is read.
    """
    check_regular(path)
    return _format_of(DataFile(path.name, path), {})


def _format_of(file: DataFile, states: dict[str, frozenset[str]]) -> DataFormat:
    folder, _, name = file.path.rpartition("/")
    stem = stem_of(name)
    suffix = Path(stem).suffix
    if stem in _COMPANIONS or name.startswith((".", "_")) or "/." in f"/{folder}":
        raise remark(ProblemCode.FILE_PASSED_OVER, "The file holds no rows and is passed over.")
    if suffix == ".arrow" and folder in states and name not in states[folder]:
        raise remark(ProblemCode.FILE_PASSED_OVER, "The folder's state.json does not name it; it is passed over.")
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix in _NO_ROWS:
        raise RowFault(ProblemCode.UNKNOWN_FORMAT, f"Files of the kind {suffix} are not read.", _READ)
    return _by_content(file)


def _by_content(file: DataFile) -> DataFormat:
    """Tells the format of a file whose suffix says nothing: JSON begins with a bracket, all else is a table."""
    check_regular(file.local)
    with file.local.open("rb") as opened:
        head = opened.read(4096).removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"PAR1"):
        return DataFormat.PARQUET
    if head.startswith(b"ARROW1"):
        return DataFormat.ARROW
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        message = "It is binary, and its name does not tell a format."
        raise RowFault(ProblemCode.UNKNOWN_FORMAT, message, _READ)
    return DataFormat.JSONL if head.lstrip()[:1] in (b"{", b"[") else DataFormat.CSV


def _divided(found: list[tuple[DataFile, DataFormat]]) -> tuple[Source, ...]:
    """Gives every file its part; without `train`, the files without part or of the first part are for training."""
    parts = [_part_of(file.path, kind) for file, kind in found]
    names = list(dict.fromkeys(parts))
    if len(names) < 2:
        return tuple(Source(file, kind, "") for file, kind in found)
    first = "train" if "train" in names else "" if "" in names else names[0]
    final = {name: "train" if name in (first, "") else name for name in names}
    return tuple(Source(file, kind, final[part]) for (file, kind), part in zip(found, parts, strict=True))


def _part_of(path: str, kind: DataFormat) -> str:
    places = path.split("/")
    if kind is DataFormat.IMAGES:  # the last folder is the label
        places = places[:-2]
    for place in reversed(places):
        words = [PARTS[word] for word in _WORDS.split(stem_of(place)) if word in PARTS]
        if words:
            return words[0]
    return ""


def _states(files: Sequence[DataFile]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yields folder -> names of its Arrow files, as `save_to_disk` notes them."""
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if name == "state.json":
            try:
                with file.local.open("rb") as opened:
                    listed = json.loads(opened.read(2**20))["_data_files"]
                yield folder, frozenset(str(each["filename"]) for each in listed)
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
