"""Milliseconds since 1970 <-> `Timestamp`."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(ms: int) -> Timestamp:
    """Returns a moment as a message."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


def optional_timestamp(ms: int | None) -> Timestamp | None:
    """Returns a moment as a message, or None for a moment that has not come."""
    return None if ms is None else timestamp(ms)


def milliseconds(moment: Timestamp) -> int:
    """Returns a message's moment."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000
