"""Covering arrays of strength two: few combinations in which every two values of two factors meet."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product


def pairs_of(factors: Mapping[str, Sequence[str]]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
    """Returns every two values of two different factors, each as (factor, value), in the order of the factors."""
    return {
        ((one, value), (other, another))
        for one, other in combinations(factors, 2)
        for value, another in product(factors[one], factors[other])
    }


def covering(factors: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Returns rows, one value for each factor, that hold every pair of `pairs_of`; the same rows for the same factors.

    Greedy: each row begins with a pair that is not held yet and takes for every other factor the value that adds most.
    """
    open_pairs = sorted(pairs_of(factors))
    rows = []
    while open_pairs:
        row = dict(open_pairs[0])
        for factor, values in factors.items():
            if factor not in row:
                row[factor] = max(values, key=lambda value: _gain({**row, factor: value}, open_pairs))
        row = {factor: row[factor] for factor in factors}
        open_pairs = [pair for pair in open_pairs if not _holds(row, pair)]
        rows.append(row)
    return rows


def _holds(row: Mapping[str, str], pair: tuple[tuple[str, str], tuple[str, str]]) -> bool:
    return all(row.get(factor) == value for factor, value in pair)


def _gain(row: Mapping[str, str], open_pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]]) -> int:
    return sum(_holds(row, pair) for pair in open_pairs)
