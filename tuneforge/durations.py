"""Seconds as a float <-> `google.protobuf.Duration`: a float of few decimals comes back as it went."""

from google.protobuf.duration_pb2 import Duration


def to_seconds(message: Duration) -> float:
    """Converts a duration to seconds, as the nearest float."""
    return (message.seconds * 10**9 + message.nanos) / 10**9


def from_seconds(seconds: float) -> Duration:
    """Converts seconds to a duration, rounded to the nanosecond."""
    nanos = round(seconds * 10**9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
