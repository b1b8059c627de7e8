"""Limits: unary calls and streams apart, and one principal not for all."""

import pytest

from services.grpckit.errors import ServiceError
from services.grpckit.limits import Limits


def test_streams_do_not_take_the_place_of_unary_calls() -> None:
    """With every stream taken, unary calls still run, and the other way round."""
    limits = Limits(max_unary=1, max_streams=2, max_streams_per_principal=2)
    limits.enter_stream("a")
    limits.enter_stream("a")
    limits.enter_unary()
    for enter in (limits.enter_unary, lambda: limits.enter_stream("b")):
        with pytest.raises(ServiceError) as caught:
            enter()
        assert caught.value.reason == "TOO_MANY_CALLS"
        assert caught.value.retry_after_s
    limits.leave_unary()
    limits.enter_unary()


def test_one_principal_cannot_take_all_streams() -> None:
    """A principal reaches its own limit first, and gets its place back when a stream ends."""
    limits = Limits(max_unary=1, max_streams=10, max_streams_per_principal=2)
    limits.enter_stream("a")
    limits.enter_stream("a")
    with pytest.raises(ServiceError, match="streams of a"):
        limits.enter_stream("a")
    limits.enter_stream("b")
    limits.leave_stream("a")
    limits.enter_stream("a")


def test_probes_have_a_limit_of_their_own() -> None:
    """Health and reflection, which need no token, are bounded too."""
    limits = Limits(max_unary=1, max_streams=1, max_streams_per_principal=1)
    for _ in range(256):
        limits.enter_probe()
    with pytest.raises(ServiceError, match="health"):
        limits.enter_probe()
    limits.leave_probe()
    limits.enter_probe()
