"""Amounts as people write them, and what is refused with a cure."""

from __future__ import annotations

import pytest

from tuneforge.specs.quantities import NotAQuantity, cpu_millis, memory_bytes


@pytest.mark.parametrize(
    ("written", "millis"),
    [(2, 2000), ("2", 2000), ("2000m", 2000), ("0.5", 500), (1.5, 1500), (" 1 ", 1000), (1e-5, 1)],
)
def test_cores(written: float | str, millis: int) -> None:
    """Whole and broken cores, and thousandths."""
    assert cpu_millis(written) == millis


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("1Gi", 1073741824),
        ("2048Mi", 2147483648),
        ("2G", 2000000000),
        (4096, 4096),
        ("1.5k", 1500),
        ("0.5", 1),
        ("7Ti", 7 * 2**40),
    ],
)
def test_memory(written: float | str, count: int) -> None:
    """Powers of 1024 and of 1000, and plain bytes; a part of a byte counts whole."""
    assert memory_bytes(written) == count


@pytest.mark.parametrize(
    "written",
    ["two", -1, 0, "", "2 cores", "2c", "1Gi", "0m", "--2", float("nan"), float("inf"), "1e3", "9" * 80, True, "2²"],
)
def test_what_is_no_share_of_the_processor(written: float | str) -> None:
    """The message says what one looks like."""
    with pytest.raises(NotAQuantity, match="2000m"):
        cpu_millis(written)


@pytest.mark.parametrize("written", ["1 gig", "1gi", "1GiB", "-2G", "0", "Gi", "16Ei", "2m", "", "1,5G", True])
def test_what_is_no_memory(written: float | str) -> None:
    """The message says what one looks like."""
    with pytest.raises(NotAQuantity, match="2048Mi"):
        memory_bytes(written)
