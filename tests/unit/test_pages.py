"""Page fields of list requests: sizes, tokens, and tokens that belong elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.grpckit.errors import Reason, ServiceError
from services.grpckit.pages import LARGEST_PAGE_BYTES, cut, next_token, page_of


@pytest.mark.parametrize(("asked", "given_size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_page_size_is_defaulted_and_cut(asked: int, given_size: int) -> None:
    """0 gives the default and everything above the limit gives the limit."""
    assert page_of(asked, "", scope="ListJobs p").size == given_size


def test_a_negative_page_size_is_refused() -> None:
    """The violation names the field and the value."""
    with pytest.raises(ServiceError, match="is -1") as caught:
        page_of(-1, "", scope="ListJobs p")
    assert caught.value.reason == Reason.INVALID_FIELD
    assert [violation.field for violation in caught.value.fields] == ["page_size"]


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_token_gives_its_key_back(scope: str, key: str) -> None:
    """Whatever the key is, the next call gets it as `after`."""
    assert page_of(0, next_token(scope, key), scope=scope).after == key


@pytest.mark.parametrize("token", ["x", "AAAA", "é", "!!!!", next_token("ListJobs p", "7")[:-3], "A" * 500])
def test_a_token_that_was_not_given_is_refused(token: str) -> None:
    """Malformed, cut or made-up tokens are INVALID_PAGE_TOKEN and nothing else."""
    with pytest.raises(ServiceError) as caught:
        page_of(0, token, scope="ListJobs p")
    assert caught.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_token_of_another_list_is_refused() -> None:
    """A token of one parent does not open a page of another."""
    with pytest.raises(ServiceError) as caught:
        page_of(0, next_token("ListJobs projects/a", "7"), scope="ListJobs projects/b")
    assert caught.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_key_that_must_be_a_number_is_checked() -> None:
    """A forged token with a text key is the caller's mistake, not ours."""
    for forged in ("seven", "-1", "9" * 19, "٣"):
        page = page_of(0, next_token("L", forged), scope="L")
        with pytest.raises(ServiceError) as caught:
            page.after_number(0)
        assert caught.value.reason == Reason.INVALID_PAGE_TOKEN
    assert page_of(0, next_token("L", "7"), scope="L").after_number(0) == 7
    assert page_of(0, "", scope="L").after_number(9) == 9


@given(st.integers(0, 60), st.integers(1, 25))
def test_a_walk_gives_each_row_once(rows: int, size: int) -> None:
    """Following tokens to the end gives all rows in order, without gap or repeat."""
    seen: list[int] = []
    token = ""
    while True:
        page = page_of(size, token, scope="walk")
        start = page.after_number(-1) + 1
        entries, token = cut(range(start, min(rows, start + size + 1)), page, str)
        seen += entries
        if not token:
            break
    assert seen == list(range(rows))


@given(st.lists(st.integers(0, LARGEST_PAGE_BYTES * 2), max_size=12), st.integers(1, 5))
def test_pages_of_large_rows_end_earlier(sizes: list[int], size: int) -> None:
    """Every row comes once, no page is empty, and none is larger than a message unless one row is."""
    seen: list[int] = []
    token = ""
    while True:
        page = page_of(size, token, scope="walk")
        start = page.after_number(-1) + 1
        rows = range(start, min(len(sizes), start + size + 1))
        entries, token = cut(rows, page, str, size_bytes=sizes.__getitem__)
        assert len(entries) == 1 or sum(sizes[entry] for entry in entries) <= LARGEST_PAGE_BYTES
        seen += entries
        if not token:
            break
    assert seen == list(range(len(sizes)))
