"""Fixtures that start real servers, for every test that names them; what every process of the tests begins with."""

import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.support.seaweedfs", "tests.support.postgres", "tests.support.time_limit"]

# Before torch is loaded: its threads would spin for 300,000 turns where tests share cores; a trainer sets the same.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Threads that gRPC starts anew in the child of a fork would take the child's files for theirs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How long an example takes is the machine's affair; `--hypothesis-profile` goes before this.
settings.register_profile("usual", deadline=None)
settings.load_profile("usual")

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Looks for no cycles while the tests are imported: nearly all that an import makes stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Takes what is loaded by now out of later collections: it stays, and to look at all of torch lasts 0.3 s."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the heavy tests first: of the processes that share the tests one begins with them, and takes one at a time.

    The others take from the end, so that light tests fill what its waits leave of the processors.
    """
    items.sort(key=lambda item: item.get_closest_marker("heavy") is None)
