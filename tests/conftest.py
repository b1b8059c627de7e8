"""Fixtures that start real servers, for every test that names them; what every process of the tests begins with."""

import signal

pytest_plugins = ["tests.support.seaweedfs", "tests.support.postgres"]

# A shell that starts the tests in the background lets them ignore Ctrl-C, and what they start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
