"""Rows are dealt out evenly, each to one process, and the same way each time."""

import pytest

from services.trainer.engine.dealing import deal


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("lengths", [[5], [3, 3], [9, 1, 1, 1, 7, 2, 2], list(range(1, 60)), [4] * 16])
def test_every_row_is_dealt_once_and_evenly(lengths: list[int], processes: int) -> None:
    """No row is missing or comes twice, and nobody has more than the mean and one longest row."""
    dealt = deal(lengths, processes)
    assert len(dealt) == processes
    assert sorted(row for rows in dealt for row in rows) == list(range(len(lengths)))
    assert all(list(rows) == sorted(rows) for rows in dealt)
    loads = [sum(lengths[row] for row in rows) for rows in dealt]
    assert max(loads) <= sum(lengths) / processes + max(lengths)
    assert deal(lengths, processes) == dealt


def test_a_long_row_stands_against_many_short_ones() -> None:
    """Tokens count, not rows."""
    assert deal([10, 2, 2, 2, 2, 2], 2) == ((0,), (1, 2, 3, 4, 5))


def test_processes_without_a_row_get_none() -> None:
    """With fewer rows than processes the last ones have nothing."""
    assert deal([1, 2], 3) == ((1,), (0,), ())
