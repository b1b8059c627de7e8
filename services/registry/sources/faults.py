"""What can go wrong at a place, in the few kinds that a caller can do something about."""

import errno
from enum import StrEnum

from tuneforge.errors import Reason

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Faults of our own disk, which are not the place's."""


class Code(StrEnum):
    """A kind of fault, by the reason that the caller is told."""

    NOT_ALLOWED = Reason.URL_NOT_ALLOWED.value
    NOT_FOUND = Reason.SOURCE_NOT_FOUND.value
    DENIED = Reason.SOURCE_DENIED.value
    TOO_LARGE = Reason.SOURCE_TOO_LARGE.value
    UNAVAILABLE = Reason.SOURCE_UNAVAILABLE.value


class SourceFault(Exception):
    """A fetch ended without the files.

    Args:
        code: The kind.
        message: What is wrong and what to do, for the caller; no secret, no address of a machine.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def for_status(status: int, what: str) -> SourceFault:
    """Returns the fault for an HTTP status that is no success.

    Args:
        status: The status.
        what: What was asked, for people.
    """
    if status in {401, 403}:
        return SourceFault(Code.DENIED, f"{what} is not for everyone (status {status})")
    if status in {404, 410}:
        return SourceFault(Code.NOT_FOUND, f"{what} is not there (status {status})")
    return SourceFault(Code.UNAVAILABLE, f"{what} was answered with status {status}")
