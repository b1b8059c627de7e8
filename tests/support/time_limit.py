"""A limit on the time of every test: one that hangs fails under its name, with what all its threads were doing.

It is for waits that have no limit of their own. It rings in the main thread, in the midst of whatever wait, and rings
again should the clean-up hang too. A wait that hears no signal is left to pytest's `faulthandler_timeout`, which ends
the process.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from tests.support.patience import TEST_LIMIT_S

AGAIN_S = 20.0
"""Seconds after which a clean-up that hangs is interrupted too."""
_STDERR = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the limit as a setting."""
    parser.addini(
        "limit_s", "seconds that the set-up, the call and the end of a test may take, each", default=f"{TEST_LIMIT_S:g}"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Limits what a test needs before it begins."""
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Limits the test."""
    with _limited(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Limits what comes after it."""
    with _limited(item):
        return (yield)


@contextmanager
def _limited(item: pytest.Item) -> Iterator[None]:
    limit_s = float(item.config.getini("limit_s"))

    def ring(*_: object) -> None:
        faulthandler.dump_traceback(_STDERR)
        pytest.fail(f"not over after {limit_s:g} s; what all threads do stands in its standard error")

    if item.get_closest_marker("chaos"):  # as many faults as there is time for
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
