"""Few combinations in which every two values meet."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.pairwise import covering, pairs_of
from tests.support.resume_cells import CELLS, FACTORS

values = st.lists(st.text("abc", min_size=1), min_size=1, max_size=4, unique=True)
factors = st.integers(2, 4).flatmap(
    lambda count: st.fixed_dictionaries({f"f{number}": values for number in range(count)})
)


@given(factors)
def test_every_pair_is_held(given_factors: dict[str, list[str]]) -> None:
    """Whatever the factors, no pair is left out, and the same rows come out again."""
    rows = covering(given_factors)
    held = {pair for row in rows for pair in combinations(row.items(), 2)}
    assert held == pairs_of(given_factors)
    assert covering(given_factors) == rows


def test_the_table_of_resumes_is_small() -> None:
    """All combinations would be many more; the two largest factors bound the table from below."""
    sizes = sorted((len(values) for values in FACTORS.values()), reverse=True)
    assert sizes[0] * sizes[1] <= len(CELLS) <= sizes[0] * sizes[1] + 8
