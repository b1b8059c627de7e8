"""The scan for numbers that are none, against numpy."""

from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.models.finite import PIECE_BYTES, first_non_finite

WIDTHS = {"F64": ("<f8", 8), "F32": ("<f4", 4), "F16": ("<f2", 2)}


def scan(content: bytes, dtype: str, begin: int = 0) -> int | None:
    """Scans bytes as one tensor after some that are not its own."""
    with NamedTemporaryFile() as file:
        file.write(b"\xff" * begin + content)
        file.flush()
        return first_non_finite(Path(file.name), begin, begin + len(content), dtype)


@settings(max_examples=60, deadline=None)
@given(dtype=st.sampled_from(sorted(WIDTHS)), raw=st.binary(min_size=64, max_size=256), begin=st.integers(0, 7))
def test_any_bytes_are_judged_as_numpy_judges_them(dtype: str, raw: bytes, begin: int) -> None:
    """Random bytes hold every kind of number; the first that is none has the same place."""
    numpy_dtype, width = WIDTHS[dtype]
    content = raw[: len(raw) // width * width]
    bad = np.flatnonzero(~np.isfinite(np.frombuffer(content, numpy_dtype)))
    assert scan(content, dtype, begin) == (int(bad[0]) if bad.size else None)


@settings(max_examples=40, deadline=None)
@given(raw=st.binary(min_size=64, max_size=256))
def test_bfloat16_is_the_upper_half_of_float32(raw: bytes) -> None:
    """Widened to float32 by zeros, the same numbers are none."""
    halves = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2")
    bad = np.flatnonzero(~np.isfinite((halves.astype("<u4") << 16).view("<f4")))
    assert scan(halves.tobytes(), "BF16") == (int(bad[0]) if bad.size else None)


@pytest.mark.parametrize("place", [0, PIECE_BYTES // 4 - 1, PIECE_BYTES // 4, PIECE_BYTES // 2 + 3])
def test_the_edges_of_pieces_are_seen(place: int) -> None:
    """A number at the end of one piece or the beginning of the next is found where it stands."""
    values = np.ones(PIECE_BYTES // 4 * 3, np.float32)
    values[place] = np.nan
    assert scan(values.tobytes(), "F32") == place


@pytest.mark.parametrize(("dtype", "bad"), [("F8_E4M3", b"\x7f"), ("F8_E4M3", b"\xff"), ("F8_E5M2", b"\x7c")])
def test_eight_bits_have_such_numbers_too(dtype: str, bad: bytes) -> None:
    """The two formats of 8 bits keep them in different places."""
    assert scan(b"\x01\x02" + bad, dtype) == 2
    assert scan(b"\x01\x02\x03", dtype) is None


def test_integers_are_always_finite() -> None:
    """There is nothing to look for in them."""
    assert scan(b"\xff" * 64, "I64") is None


def test_a_file_that_is_cut_off_meanwhile_is_not_believed(tmp_path: Path) -> None:
    """Where the bytes end before the tensor does, the next number is told."""
    path = tmp_path / "x"
    path.write_bytes(b"\0" * 16)
    assert first_non_finite(path, 0, 64, "F32") == 4
