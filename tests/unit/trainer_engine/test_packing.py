"""Best fit decreasing: every row once, no line too long, and nearly full."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.engine.packing import best_fit, fill

LENGTHS = st.lists(st.integers(1, 60), max_size=80)


@given(lengths=LENGTHS, capacity=st.integers(1, 70), max_rows=st.none() | st.integers(1, 5))
def test_every_row_has_one_place(lengths: list[int], capacity: int, max_rows: int | None) -> None:
    """Each row is in one line; a line is at most full, unless it is one row that is longer."""
    lines = best_fit(lengths, capacity, max_rows=max_rows)
    assert sorted(index for line in lines for index in line) == list(range(len(lengths)))
    for line in lines:
        assert sum(lengths[index] for index in line) <= capacity or len(line) == 1
        assert max_rows is None or len(line) <= max_rows


@given(lengths=LENGTHS, capacity=st.integers(60, 90))
def test_few_lines_are_used(lengths: list[int], capacity: int) -> None:
    """At most 11/9 of the fewest possible lines and a little (Johnson 1973), of which there are at least so many."""
    fewest = math.ceil(sum(lengths) / capacity)
    assert len(best_fit(lengths, capacity)) <= 11 / 9 * max(fewest, _pairwise_bound(lengths, capacity)) + 4


def _pairwise_bound(lengths: list[int], capacity: int) -> int:
    """No two rows of more than half a line share one."""
    return sum(2 * length > capacity for length in lengths)


def plainly(lengths: list[int], capacity: int) -> list[tuple[int, ...]]:
    """Best fit decreasing as it is told: look at every line."""
    lines: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        rooms = [capacity - sum(lengths[each] for each in line) for line in lines]
        fitting = [room for room in rooms if room >= lengths[index] and room > 0]
        if fitting:
            places = [number for number, room in enumerate(rooms) if room == min(fitting)]
            # Which of several lines with the same room is taken changes no count.
            lines[places[-1]].append(index)
        else:
            lines.append([index])
    return [tuple(line) for line in lines]


@given(lengths=LENGTHS, capacity=st.integers(60, 90))
def test_it_is_best_fit(lengths: list[int], capacity: int) -> None:
    """As many lines as the plain rule gives, with the same rooms left."""

    def rooms(lines: list[tuple[int, ...]]) -> list[int]:
        return sorted(capacity - sum(lengths[index] for index in line) for line in lines)

    assert rooms(best_fit(lengths, capacity)) == rooms(plainly(lengths, capacity))


@pytest.mark.parametrize("seed", range(3))
def test_short_rows_fill_long_lines(seed: int) -> None:
    """Rows of chat lengths fill lines of 2048 tokens to more than 98 %."""
    draws = np.random.default_rng(seed).lognormal(math.log(120), 0.8, 5000)
    lengths = np.clip(draws, 1, 512).astype(int).tolist()
    assert fill(lengths, 2048, len(best_fit(lengths, 2048))) >= 0.98
