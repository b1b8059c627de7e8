"""Reads the header of a safetensors file: names, shapes and number formats of its tensors, no weights.

The file comes from a stranger. Everything is checked before it is believed: the header's length against the file,
every offset against the data, every size against its shape, and that the data is covered once, without overlap or
hole, as the format demands (https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.registry.models.shapes import Tensor

LARGEST_HEADER_BYTES = 8 * 1024 * 1024
"""8 MiB: a model with 50,000 tensors has about 6."""
LARGEST_METADATA_CHARACTERS = 1024 * 1024
"""Of `__metadata__`: real ones say `pt`."""
_MOST_SIDES = 8
_LONGEST_NAME = 256

BYTES_PER_ELEMENT = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Number formats that are taken, with the bytes of one element."""


class MalformedFile(ValueError):
    """The file is not a safetensors file that can be trusted; the text says why and what to do, without its name."""


class HeaderTooLarge(MalformedFile):
    """The header is larger than that of any real model."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and where its bytes lie in the file."""

    tensor: Tensor
    begin: int
    end: int


def read_tensors(path: Path) -> list[Tensor]:
    """Returns the tensors of a file, ordered by name.

    Raises:
        MalformedFile: The header breaks a rule of the format, or a limit of this module.
    """
    return [placed.tensor for placed in read_placed(path)]


def read_placed(path: Path) -> list[Placed]:
    """Returns the tensors of a file, ordered by name, with their places.

    Raises:
        MalformedFile: As `read_tensors`.
    """
    size = path.stat().st_size
    if size < 8:
        raise MalformedFile(f"has {size} bytes, too few for a safetensors header; upload the whole file")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise MalformedFile(
                f"says that its header has {length} bytes, but only {size - 8} follow; it is cut off or not safetensors"
            )
        if length > LARGEST_HEADER_BYTES:
            raise HeaderTooLarge(f"has a header of {length} bytes; at most {LARGEST_HEADER_BYTES} are taken")
        header = _parse(file.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedFile("has __metadata__ that is not a map from text to text; write it anew with safetensors")
    if sum(len(key) + len(value) for key, value in metadata.items()) > LARGEST_METADATA_CHARACTERS:
        raise HeaderTooLarge(f"has __metadata__ of more than {LARGEST_METADATA_CHARACTERS} characters; leave it out")
    spans = []
    tensors = []
    for name in sorted(header):
        tensor, begin, end = _entry(name, header[name])
        tensors.append(Placed(tensor, 8 + length + begin, 8 + length + end))
        spans.append((begin, end, name))
    _check_coverage(sorted(spans), size - 8 - length)
    return tensors


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats)
    except MalformedFile:
        raise
    except (ValueError, RecursionError):  # the first also for numbers with thousands of digits
        raise MalformedFile("has a header that is not JSON; it is not a safetensors file") from None
    if not isinstance(header, dict):
        raise MalformedFile("has a header that is not a JSON object; it is not a safetensors file")
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise MalformedFile("has a header in which a key comes twice; write it anew with safetensors")
    return content


def _entry(name: str, entry: Any) -> tuple[Tensor, int, int]:
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise MalformedFile(f"has a tensor with the name {name[:80]!r}; give 1 to {_LONGEST_NAME} printable characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise MalformedFile(f"describes the tensor {name!r} without exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES_PER_ELEMENT:
        known = ", ".join(BYTES_PER_ELEMENT)
        raise MalformedFile(f"has the tensor {name!r} with dtype {str(dtype)[:40]!r}; known are {known}")
    if not _are_counts(shape) or len(shape) > _MOST_SIDES:
        raise MalformedFile(f"has the tensor {name!r} with a shape that is not a list of up to {_MOST_SIDES} counts")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise MalformedFile(f"has the tensor {name!r} with data_offsets that are not a begin and an end")
    begin, end = offsets
    if end - begin != math.prod(shape) * BYTES_PER_ELEMENT[dtype]:
        raise MalformedFile(f"gives the tensor {name!r} {end - begin} bytes, which is not what {dtype} {shape} takes")
    return Tensor(name=name, shape=tuple(shape), dtype=dtype), begin, end


def _are_counts(value: Any) -> bool:
    # bool is an int to Python, and not to anybody else; 2**48: more elements than any memory holds.
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**48 for each in value)


def _check_coverage(spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Refuses unless the tensors, one after the other, are exactly the data."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            fault = "overlaps another" if begin < position else "leaves a hole before it"
            raise MalformedFile(f"has the tensor {name!r} at byte {begin}, which {fault}; write it anew")
        position = end
    if position != data_bytes:
        raise MalformedFile(
            f"has {data_bytes} bytes of data, but its tensors take {position}; it is cut off or has something appended"
        )
