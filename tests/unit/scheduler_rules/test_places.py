"""Resume tokens of streams over many things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.watching.tokens import BadToken, Place, read_place, scope_of, write_place

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
PLACES = st.builds(Place, NUMBERS, NUMBERS, st.booleans())


@given(PLACES, st.text(), st.text())
def test_a_token_gives_its_place_back_in_its_scope_alone(place: Place, parent: str, other: str) -> None:
    """What was written is read again, and refused where another parent or filter is asked for."""
    token = write_place(scope_of("database", parent), place)
    assert read_place(token, scope_of("database", parent)) == place
    if other != parent:
        with pytest.raises(BadToken, match="another"):
            read_place(token, scope_of("database", other))


@given(PLACES, st.integers(min_value=0), st.integers(min_value=1, max_value=63))
def test_a_damaged_token_is_refused(place: Place, where: int, change: int) -> None:
    """No changed character is taken for another place."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = write_place(1, place)
    index = where % (len(token) - 1)  # the last one has bits that mean nothing
    damaged = token[:index] + alphabet[(alphabet.index(token[index]) + change) % 64] + token[index + 1 :]
    with pytest.raises(BadToken):
        read_place(damaged, 1)
