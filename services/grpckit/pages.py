"""Pages of a list: how many entries, and from where.

A token holds the key of the last entry and a check over the list that it belongs to, so a token of another method,
parent or filter is refused instead of giving a page of something else. It is no secret and gives no right: the rows
are read with the caller's own parent anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from services.grpckit.errors import FieldViolation, Reason, ServiceError, invalid_fields

T = TypeVar("T")

DEFAULT_SIZE = 50
LARGEST_SIZE = 1000
LARGEST_PAGE_BYTES = 3 * 1024 * 1024
"""What a page of large rows may take: clients refuse messages above 4 MiB."""
_CHECK_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The part of a list that a caller asks for."""

    scope: str
    """What the list is of: method, parent and filters."""
    size: int
    """Most entries, 1 to 1000."""
    after: str | None
    """Key of the last entry of the page before; None for the first page."""

    def after_number(self, start: int) -> int:
        """Returns `after` as an integer, or `start` for the first page.

        Raises:
            ServiceError: `INVALID_PAGE_TOKEN`, for a token that was tampered with.
        """
        if self.after is None:
            return start
        # At most 18 digits: below every database's largest integer.
        if not (self.after.isascii() and self.after.isdigit() and len(self.after) <= 18):
            raise _bad_token()
        return int(self.after)


def page_of(page_size: int, page_token: str, *, scope: str) -> Page:
    """Reads the page fields of a list request.

    Args:
        page_size: As sent: 0 gives 50, more than 1000 is cut.
        page_token: As sent; empty for the first page.
        scope: Method, parent and filters, e.g. `ListJobs projects/p state=QUEUED`.

    Raises:
        ServiceError: `INVALID_FIELD` for a negative size, `INVALID_PAGE_TOKEN` for a token that is not of this list.
    """
    if page_size < 0:
        raise invalid_fields(
            [
                FieldViolation(
                    "page_size", f"is {page_size}; give 0 for the default of {DEFAULT_SIZE}, or up to {LARGEST_SIZE}"
                )
            ]
        )
    size = min(page_size or DEFAULT_SIZE, LARGEST_SIZE)
    return Page(scope=scope, size=size, after=_key_of(page_token, scope) if page_token else None)


def next_token(scope: str, last_key: str) -> str:
    """Returns the token of the page that begins after a key."""
    key = last_key.encode()
    return base64.urlsafe_b64encode(_check(scope, key) + key).decode().rstrip("=")


def cut(
    rows: Sequence[T], page: Page, key: Callable[[T], str], *, size_bytes: Callable[[T], int] | None = None
) -> tuple[list[T], str]:
    """Cuts rows to a page and gives the next page's token; empty when these are the last.

    Args:
        rows: The rows after `page.after`, up to `page.size + 1` of them: the one too many tells that there is more.
        page: The page asked for.
        key: Gives the key of a row, as the next call gets it in `after`.
        size_bytes: Gives the size of a row in the answer, for lists of large rows: a page then ends before
            `LARGEST_PAGE_BYTES`, but has at least one row.
    """
    entries = list(rows[: page.size])
    if size_bytes is not None:
        ends = accumulate(size_bytes(entry) for entry in entries)
        entries = entries[: max(1, sum(end <= LARGEST_PAGE_BYTES for end in ends))]
    return entries, next_token(page.scope, key(entries[-1])) if len(rows) > len(entries) else ""


def _key_of(token: str, scope: str) -> str:
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        check, key = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        text = key.decode()
    except (UnicodeError, binascii.Error):
        raise _bad_token() from None
    if check != _check(scope, key):
        raise _bad_token()
    return text


def _check(scope: str, key: bytes) -> bytes:
    return hashlib.sha256(scope.encode() + b"\0" + key).digest()[:_CHECK_BYTES]


def _bad_token() -> ServiceError:
    return ServiceError(
        Reason.INVALID_PAGE_TOKEN, "page_token was not given by this method for this list; start again without one"
    )
