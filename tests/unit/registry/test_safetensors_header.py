"""The reader of safetensors headers: what the format's own writer makes is read, everything else is refused."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from services.registry.models.safetensors_header import MalformedFile, read_tensors
from services.registry.models.shapes import Tensor


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    """Writes a file with any header, well-formed or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """Returns the description of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    """Names, shapes and formats are those that were saved; scalars and empty tensors too."""
    arrays = {
        "b": np.zeros((3, 4), np.float32),
        "a": np.zeros((2, 0), np.float16),
        "c": np.array(5, np.int64),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_tensors(tmp_path / "x.safetensors") == [
        Tensor(name="a", shape=(2, 0), dtype="F16"),
        Tensor(name="b", shape=(3, 4), dtype="F32"),
        Tensor(name="c", shape=(), dtype="I64"),
    ]


REFUSED: dict[str, tuple[Any, bytes, str]] = {
    "not json": (b"{", b"", "not JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "not JSON"),
    "too deep": (b"[" * 100_000, b"", "not JSON"),
    "number with many digits": (b'{"a": ' + b"9" * 5000 + b"}", b"", "not JSON"),
    "a list": ([], b"", "not a JSON object"),
    "a key twice": (b'{"a": {}, "a": {}}', b"", "a key comes twice"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "no description": ({"a": 5}, b"", "dtype, shape and data_offsets"),
    "one key more": ({"a": entry() | {"code": "x"}}, bytes(8), "exactly dtype"),
    "empty name": ({"": entry()}, bytes(8), "name ''"),
    "name with a line break": ({"a\nb": entry()}, bytes(8), "printable"),
    "unknown dtype": ({"a": entry(dtype="F33")}, bytes(8), "known are"),
    "dtype that is no text": ({"a": entry(dtype=["F32"])}, bytes(8), "known are"),
    "shape that is no list": ({"a": entry(shape=2)}, bytes(8), "list of up to 8 counts"),
    "negative side": ({"a": entry(shape=[-2])}, bytes(8), "counts"),
    "side that is true": ({"a": entry(shape=[True, 2])}, bytes(8), "counts"),
    "fractional side": ({"a": entry(shape=[2.0])}, bytes(8), "counts"),
    "endless side": ({"a": entry(shape=[2**60])}, bytes(8), "counts"),
    "nine sides": ({"a": entry(shape=[1] * 9)}, bytes(8), "up to 8"),
    "three offsets": ({"a": entry(offsets=[0, 8, 9])}, bytes(8), "begin and an end"),
    "backward offsets": ({"a": entry(offsets=[8, 0])}, bytes(8), "begin and an end"),
    "size not of the shape": ({"a": entry(shape=[3])}, bytes(8), "not what F32"),
    "beyond the data": ({"a": entry()}, bytes(4), "cut off"),
    "something appended": ({"a": entry()}, bytes(9), "appended"),
    "a hole": ({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20), "hole"),
    "an overlap": ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "overlaps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_headers_that_break_a_rule_are_refused(tmp_path: Path, case: str) -> None:
    """Each rule of the format has its own sentence, and no file gets past one."""
    header, data, sentence = REFUSED[case]
    with pytest.raises(MalformedFile, match=sentence):
        read_tensors(write(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 2**64 - 1) + b"{}"])
def test_torn_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """A length that the file does not have is refused before anything is read by it."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(MalformedFile):
        read_tensors(tmp_path / "x")


def test_a_header_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file with a header of 17 MiB is refused by its length."""
    with (tmp_path / "x").open("wb") as file:
        file.write(struct.pack("<Q", 17 * 2**20))
        file.truncate(18 * 2**20)
    with pytest.raises(MalformedFile, match="at most 8388608"):
        read_tensors(tmp_path / "x")


@given(content=st.binary(max_size=300), cut=st.integers(0, 400), flip=st.integers(0, 399))
def test_damaged_files_give_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, flip: int
) -> None:
    """Random bytes, cut files and flipped bits are read or refused; nothing else is ever raised."""
    folder = tmp_path_factory.mktemp("damaged")
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(7, np.int8)}, folder / "good")
    good = bytearray((folder / "good").read_bytes())
    good[flip % len(good)] ^= 1 << (flip % 8)
    for damaged in (content, bytes(good[:cut]), bytes(good)):
        (folder / "x").write_bytes(damaged)
        with contextlib.suppress(MalformedFile):
            read_tensors(folder / "x")
