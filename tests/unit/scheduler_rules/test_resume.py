"""Resume tokens: opaque, checked, bound to their job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.resume import BadToken, read_token, write_token

UIDS = st.integers(0, 2**63 - 1)
SEQS = st.integers(0, 2**63 - 1)


@given(UIDS, SEQS)
def test_token_comes_back(uid: int, seq: int) -> None:
    """What was written is read for the same job."""
    assert read_token(write_token(uid, seq), uid) == seq


@given(UIDS, UIDS, SEQS)
def test_token_of_another_job_is_refused(uid: int, other: int, seq: int) -> None:
    """A token is good for its own job only."""
    if uid != other:
        with pytest.raises(BadToken):
            read_token(write_token(uid, seq), other)


@given(UIDS, SEQS, st.data())
def test_damaged_token_is_refused(uid: int, seq: int, data: st.DataObject) -> None:
    """A token with one character changed is refused, or was not changed in its meaning."""
    token = write_token(uid, seq)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_"))
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(BadToken):
            read_token(changed, uid)


@given(st.text(max_size=60))
def test_any_text_is_refused_cleanly(text: str) -> None:
    """Whatever a caller sends, the answer is BadToken."""
    with pytest.raises(BadToken):
        read_token(text, 1)
