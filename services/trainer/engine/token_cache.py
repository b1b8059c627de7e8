"""Rows as tokens, kept on disk by the digests of all that made them.

Making tokens of many rows takes longer than many a short run; a second attempt, a second job over the same rows and
every trial of a sweep read them back instead. An entry is one file of flat arrays, mapped into memory, so attempts on
one node share its pages. Nothing in the cache is trusted: an entry that is not what its checksum says is removed and
made anew.

The cache knows no task: what an entry holds is a few arrays and some facts, by names that the caller gives them.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"TFTOK001"
_ALIGNMENT = 64
_SUFFIX = ".tokens"
_CODE = (Path("tuneforge/data"), Path("services/trainer/engine"))
"""Source that decides which tokens a row becomes and which of them are learned."""
_PACKAGES = ("tokenizers", "jinja2", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one key stands for."""

    facts: Mapping[str, Any]
    """JSON values."""
    arrays: Mapping[str, NDArray[Any]]
    """Arrays by name; read-only when they come from the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCache:
    """A folder of entries. Safe to use from several processes at once."""

    folder: Path
    """Made when the first entry is saved."""
    limit_bytes: int
    """Most bytes of all entries together, >= 0; those that were not used for longest go first."""

    def load(self, key: str) -> Entry | None:
        """Returns an entry; None when there is none that is whole."""
        path = self._path(key)
        try:
            entry = _read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # cut, damaged, or of another release
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return entry

    def save(self, key: str, entry: Entry) -> None:
        """Keeps an entry, unless it is larger than the cache or the disk refuses: it can be made again."""
        header, size = _header(entry)
        if size > self.limit_bytes:
            return
        temporary = self.folder / f".{key}.{os.getpid()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(header)
                for array in entry.arrays.values():
                    file.write(_padding(file.tell()))
                    file.write(np.ascontiguousarray(array).data)
            temporary.rename(self._path(key))
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _make_room(self, size: int) -> None:
        entries = []
        for path in self.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                entries.append((facts.st_mtime_ns, facts.st_size, path))
        room = self.limit_bytes - size - sum(taken for _, taken, _ in entries)
        for _, taken, path in sorted(entries):
            if room >= 0:
                return
            path.unlink(missing_ok=True)  # whoever has it mapped keeps it
            room += taken

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)


def key_of(parts: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Returns the key of an entry: a digest over what it is made of, by which rules and by which code.

    Args:
        parts: The rules; JSON values.
        files: Files whose bytes count, in this order; each must be there.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode() + _code_digest().encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


@functools.cache
def _code_digest() -> str:
    """Returns a digest over the code that makes tokens, so that no release reads the tokens of another one."""
    root = Path(__file__).parents[3]
    digest = hashlib.sha256()
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    for package in _PACKAGES:
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    return digest.hexdigest()


def _header(entry: Entry) -> tuple[bytes, int]:
    """Returns the head of an entry's file and the size of the whole."""
    arrays = [
        {
            "name": name,
            "dtype": array.dtype.str,
            "shape": array.shape,
            "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
        }
        for name, array in entry.arrays.items()
    ]
    content = json.dumps({"facts": dict(entry.facts), "arrays": arrays}).encode()
    header = _MAGIC + len(content).to_bytes(8, "little") + hashlib.sha256(content).digest() + content
    size = len(header)
    for array in entry.arrays.values():
        size += len(_padding(size)) + array.nbytes
    return header, size


def _read(path: Path) -> Entry:
    """Reads and verifies a file.

    Raises:
        OSError: It cannot be read.
        ValueError, KeyError, TypeError: It is not whole.
    """
    content = np.memmap(path, dtype=np.uint8, mode="r")
    head = content[:48].tobytes()
    end = 48 + int.from_bytes(head[8:16], "little")
    text = content[48:end].tobytes()
    if head[:8] != _MAGIC or hashlib.sha256(text).digest() != head[16:48]:
        raise ValueError(path)
    described, position, arrays = json.loads(text), end, {}
    for each in described["arrays"]:
        dtype, shape = np.dtype(each["dtype"]), tuple(each["shape"])
        start = position + len(_padding(position))
        position = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        piece = content[start:position]
        if hashlib.sha256(piece.data).hexdigest() != each["sha256"]:
            raise ValueError(path)
        arrays[each["name"]] = piece.view(np.ndarray).view(dtype).reshape(shape)
    if position != len(content):
        raise ValueError(path)
    return Entry(facts=described["facts"], arrays=arrays)


def _padding(position: int) -> bytes:
    return bytes(-position % _ALIGNMENT)
