"""A client that is given several addresses of one scheduler: calls and streams reach the one that answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from services.stores.ports import free_ports
from tests.contract.test_sdk_watch import some_events
from tests.support import fake_scheduler
from tests.support.certificates import make_certificates
from tests.support.fake_scheduler import JOB, FakeScheduler
from tuneforge import Client, DeadlineExceeded, Unavailable
from tuneforge._resumed_stream import WatchOptions

NEVER = 10**9


@pytest.fixture
def pair() -> Iterator[tuple[tuple[FakeScheduler, FakeScheduler], str]]:
    """Two schedulers with the same events, and their addresses."""
    both = FakeScheduler(events=some_events(10)), FakeScheduler(events=some_events(10))
    with ExitStack() as life:
        yield both, ",".join(life.enter_context(fake_scheduler.serve(each)) for each in both)


def test_calls_find_the_one_that_answers_and_stay(pair: tuple[tuple[FakeScheduler, FakeScheduler], str]) -> None:
    """Nobody is at the first address, the second one refuses; once the third has answered, only it is asked."""
    (standby, leader), addresses = pair
    standby.refusals = NEVER
    with Client(scheduler=f"127.0.0.1:{free_ports(1)[0]},{addresses}") as client:
        for _ in range(3):
            assert client.jobs.read("my-job").name == JOB
    assert (len(standby.requests), len(leader.requests)) == (1, 3)
    assert len({headers["x-request-id"] for headers in [*standby.headers, leader.headers[0]]}) == 1


def test_a_watch_goes_on_at_the_other_one(pair: tuple[tuple[FakeScheduler, FakeScheduler], str]) -> None:
    """A stream that breaks is opened at the next address from its token: every event comes once."""
    (first, second), addresses = pair
    first.cut = lambda _, message: "UNAVAILABLE" if message == 4 else ""
    with Client(scheduler=addresses) as client:
        assert [event.job_seq for event in client.jobs.watch("my-job")] == list(range(1, 11))
    assert (first.streams, second.streams) == (1, 1)


def test_a_watch_leaves_one_that_says_nothing(pair: tuple[tuple[FakeScheduler, FakeScheduler], str]) -> None:
    """Its connection lives, and it hangs: after a silence the watch goes on at the next address."""
    (hung, second), addresses = pair
    hung.cut = lambda _, message: "silence" if message == 2 else ""
    options = WatchOptions(silence_s=1.0, give_up_after_s=100.0)
    with Client(scheduler=addresses) as client:
        assert [event.job_seq for event in client.jobs.watch("my-job", options=options)] == list(range(1, 11))
    hung.released.set()
    assert (hung.streams, second.streams) == (1, 1)


def test_after_one_that_hangs_the_next_is_asked(
    pair: tuple[tuple[FakeScheduler, FakeScheduler], str], tmp_path: Path
) -> None:
    """A call to it ends at its deadline, the next one is made elsewhere; each host has its own name in TLS."""
    (hung, _), _ = pair
    hung.is_slow = True
    certificates = make_certificates(tmp_path)
    key_and_cert = (certificates.key.read_bytes(), certificates.cert.read_bytes())
    credentials = grpc.ssl_server_credentials([key_and_cert])
    with ExitStack() as life:
        first = life.enter_context(fake_scheduler.serve(hung, credentials=credentials))
        second = life.enter_context(fake_scheduler.serve(FakeScheduler(), credentials=credentials))
        addresses = f"{first.replace('127.0.0.1', 'localhost')},{second}"
        client = life.enter_context(Client(scheduler=addresses, ca=certificates.ca, deadline_s=2.0))
        with pytest.raises(DeadlineExceeded):
            client.jobs.read("my-job")
        assert client.jobs.read("my-job").name == JOB


def test_nobody_anywhere_is_told_with_all_addresses() -> None:
    """The error names every address that was tried."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    with Client(scheduler=addresses, patience_s=0.5) as client, pytest.raises(Unavailable) as caught:
        client.jobs.read("my-job")
    assert f"the scheduler at {addresses} does not answer" in str(caught.value)


def test_a_wrong_list_is_one_clear_message() -> None:
    """The command line says which value is wrong, and nothing else."""
    command = [sys.executable, "-m", "tuneforge.cli", "--scheduler", "a:1,b", "jobs", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: the address is wrong: 'b' is not of the form host:port"
    assert "Traceback" not in done.stderr
