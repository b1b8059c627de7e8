"""Resume tokens of `WatchJob`: where a watcher stands, opaque to it and checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib

_FORM = struct.Struct(">BQQ")
_FORM_COMPACTED = struct.Struct(">BQQQ")
_CHECK = struct.Struct(">I")
_VERSION = 1
_VERSION_COMPACTED = 2


class BadToken(ValueError):
    """The text is not a resume token of this job."""


def write_token(uid: int, job_seq: int, compacted: int = 0) -> str:
    """Returns the token that means: everything up to `job_seq` was received.

    Args:
        uid: the job's random 63-bit identity, so that a token of a namesake in another data folder is refused.
        job_seq: number of the last event received; 0: none.
        compacted: the reader was told that events up to this one were thinned out; 0: of none.
    """
    if compacted:
        body = _FORM_COMPACTED.pack(_VERSION_COMPACTED, uid, job_seq, compacted)
    else:
        body = _FORM.pack(_VERSION, uid, job_seq)
    return base64.urlsafe_b64encode(body + _CHECK.pack(zlib.crc32(body))).decode().rstrip("=")


def read_token(text: str, uid: int) -> int:
    """Returns the `job_seq` in a token.

    Raises:
        BadToken: it is malformed, damaged, or of another job.
    """
    return read_place(text, uid)[0]


def read_place(text: str, uid: int) -> tuple[int, int]:
    """Returns the `job_seq` in a token, and up to where its reader knows that the log was thinned out.

    Raises:
        BadToken: it is malformed, damaged, or of another job.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadToken("it is not one that WatchJob gave") from error
    form, version = (_FORM, _VERSION) if len(raw) == _FORM.size + _CHECK.size else (_FORM_COMPACTED, _VERSION_COMPACTED)
    if len(raw) != form.size + _CHECK.size:
        raise BadToken("it is not one that WatchJob gave")
    body, (check,) = raw[: form.size], _CHECK.unpack(raw[form.size :])
    given, owner, job_seq, *compacted = form.unpack(body)
    if check != zlib.crc32(body) or given != version:
        raise BadToken("it is not one that WatchJob gave")
    if owner != uid:
        raise BadToken("it was given for another job")
    return int(job_seq), int(compacted[0]) if compacted else 0
