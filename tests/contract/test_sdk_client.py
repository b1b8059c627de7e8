"""What every call of the SDK has in common, against services on real sockets that refuse on demand."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.contract.test_sdk_watch import some_events
from tests.support import fake_registry_small, fake_scheduler
from tests.support.certificates import make_certificates
from tests.support.fake_registry_small import FakeRegistry
from tests.support.fake_scheduler import JOB, FakeScheduler
from tuneforge import (
    Client,
    DeadlineExceeded,
    InvalidArgument,
    JobCancelled,
    JobFailed,
    JobState,
    Unavailable,
)
from tuneforge._transport import TransportSettings, open_channel
from tuneforge.v1 import errors_pb2, jobs_pb2, types_pb2

SPEC = {"base": {"model": "m/1"}, "supervised": {}, "lora": {}, "data": {"train": {"dataset": "rows"}}}


@pytest.fixture
def scheduler() -> FakeScheduler:
    """A scheduler with one job."""
    return FakeScheduler()


@pytest.fixture
def registry() -> FakeRegistry:
    """A registry with five data sets."""
    return FakeRegistry(datasets=["a", "b", "c", "d", "e"])


@pytest.fixture
def client(scheduler: FakeScheduler, registry: FakeRegistry) -> Iterator[Client]:
    """A client of both."""
    with (
        fake_scheduler.serve(scheduler) as scheduler_address,
        fake_registry_small.serve(registry) as registry_address,
        Client(scheduler=scheduler_address, registry=registry_address, token="secret") as client,
    ):
        yield client


def test_a_refused_call_is_repeated_with_the_same_ids(client: Client, scheduler: FakeScheduler) -> None:
    """After UNAVAILABLE the same request, with the same ids, comes again: it counts once."""
    scheduler.refusals = 2
    handle = client.jobs.create(SPEC, job_id="one")
    assert handle.state is JobState.QUEUED
    assert len(scheduler.requests) == 3
    assert len({request.request_id for request in scheduler.requests}) == 1
    assert uuid.UUID(scheduler.requests[0].request_id).version == 4
    assert len({headers["x-request-id"] for headers in scheduler.headers}) == 1


def test_two_calls_have_two_ids(client: Client, scheduler: FakeScheduler) -> None:
    """Calls that are meant twice are not taken for one."""
    client.jobs.create(SPEC)
    client.jobs.create(SPEC)
    assert len({request.request_id for request in scheduler.requests}) == 2
    assert len({headers["x-request-id"] for headers in scheduler.headers}) == 2


def test_every_call_has_token_and_deadline(client: Client, scheduler: FakeScheduler) -> None:
    """The service sees who calls, and for how long the caller waits."""
    client.jobs.read("my-job")
    list(client.jobs.watch("my-job"))
    assert {headers["authorization"] for headers in scheduler.headers} == {"Bearer secret"}
    unary, stream = scheduler.deadlines
    assert unary is not None
    assert 20 < unary < 31
    assert stream is None or stream > 1e6, "a watch lasts as long as its job"


def test_a_service_that_stays_away_is_named(scheduler: FakeScheduler) -> None:
    """The error says which service, where, and what to do."""
    with fake_scheduler.serve(scheduler) as address:
        pass
    said = f"the scheduler at {address} does not answer: the connection was refused"
    with Client(scheduler=address, patience_s=0.2) as client, pytest.raises(Unavailable, match=said) as caught:
        client.jobs.read("my-job")
    assert caught.value.cure


def test_lists_hide_their_pages(client: Client, registry: FakeRegistry) -> None:
    """Five entries come from three pages, fetched as they are needed."""
    found = client.datasets.list()
    assert next(found).name == "projects/default/datasets/a"
    assert registry.calls == ["ListDatasets"]
    assert [dataset.name[-1] for dataset in found] == ["b", "c", "d", "e"]
    assert registry.calls == ["ListDatasets"] * 3


def test_a_call_that_takes_too_long_ends(scheduler: FakeScheduler) -> None:
    """A client's own default deadline is kept."""
    with fake_scheduler.serve(scheduler) as address, Client(scheduler=address, deadline_s=0.2) as client:
        scheduler.is_slow = True
        with pytest.raises(DeadlineExceeded, match="in time"):
            client.jobs.get("my-job")


def test_result_waits_for_the_end(client: Client, scheduler: FakeScheduler) -> None:
    """A job that succeeded is returned with its version."""
    handle = client.jobs.get("my-job")
    with pytest.raises(DeadlineExceeded, match=r"RUNNING after 0\.1 s"):
        handle.result(timeout_s=0.1)
    scheduler.job.state = jobs_pb2.JOB_STATE_SUCCEEDED
    scheduler.job.version.version = "projects/default/models/m/versions/2"
    version = handle.result(timeout_s=100).version
    assert version is not None
    assert version.version == "projects/default/models/m/versions/2"


def test_a_failed_job_raises_its_failure(client: Client, scheduler: FakeScheduler) -> None:
    """Message and cure of the failure reach the caller."""
    scheduler.job.state = jobs_pb2.JOB_STATE_FAILED
    scheduler.job.failure.CopyFrom(
        types_pb2.Failure(
            reason=errors_pb2.ERROR_REASON_LOSS_NOT_FINITE, message="The loss is NaN at step 7.", cure="Lower it."
        )
    )
    with pytest.raises(JobFailed, match=r"NaN at step 7\.\nLower it\.") as caught:
        client.jobs.get("my-job").result()
    assert caught.value.reason == "LOSS_NOT_FINITE"


def test_a_cancelled_job_has_no_result(client: Client, scheduler: FakeScheduler) -> None:
    """Cancelling is told apart from failing."""
    handle = client.jobs.get("my-job")
    assert handle.cancel("not needed").state is JobState.CANCELLED
    assert scheduler.requests[-1].reason == "not needed"
    with pytest.raises(JobCancelled):
        handle.result()


def test_a_handle_watches_its_job(client: Client, scheduler: FakeScheduler) -> None:
    """The handle's job is that of the newest snapshot."""
    handle = client.jobs.get("my-job")
    scheduler.job.step = 7
    assert list(handle.watch()) == []
    assert handle.job.step == 7
    assert repr(handle) == f"<JobHandle {JOB} RUNNING>"


TORN = """
import signal, sys, time
from tuneforge import Client

stopped = 0

def stop(*_):
    global stopped
    stopped += 1
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
for turn in range(1, 26):
    client = Client(scheduler=sys.argv[1])
    watch = client.jobs.watch("my-job")
    next(watch)
    try:
        signal.setitimer(signal.ITIMER_REAL, turn * 2e-5)
        client.close()
        while stopped < turn:
            time.sleep(0.001)
    except KeyboardInterrupt:
        client.close()
print("closed")
"""


def test_ctrl_c_while_closing_does_not_hang() -> None:
    """Stopped at any moment of a close with an open stream, a client can be closed again and its process ends."""
    fake = FakeScheduler(events=some_events(3), cut=lambda _, message: "silence" if message == 2 else "")
    with fake_scheduler.serve(fake) as address:
        done = subprocess.run(
            [sys.executable, "-c", TORN, address], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def test_a_closed_client_says_so(client: Client) -> None:
    """A call after `close` is a mistake of the program."""
    client.jobs.read("my-job")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.jobs.read("my-job")


def test_channels_are_opened_late_and_shared() -> None:
    """Nothing is connected before the first call, and one address has one channel."""
    with Client(registry="127.0.0.1:1", scheduler="127.0.0.1:1") as client:
        assert client._connections._channels == {}
        assert client._connections.registry.channel is client._connections.scheduler.channel


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not given is read from the environment, then taken from the defaults."""
    monkeypatch.setenv("TUNEFORGE_REGISTRY_ADDRESS", "host:1")
    monkeypatch.setenv("TUNEFORGE_PROJECT", "team")
    with Client(scheduler="other:2") as client:
        addresses = client._connections._addresses
        assert (addresses.registry, addresses.scheduler) == ("host:1", "other:2")
        assert addresses.inference == "127.0.0.1:7104"
        assert client.project == "team"


@pytest.mark.parametrize("address", ["nowhere", "host:", ":1", "host:port"])
def test_a_malformed_address_is_refused(address: str) -> None:
    """An address without host or port is refused before anything is sent."""
    with pytest.raises(InvalidArgument, match="host:port"):
        open_channel(address)


def test_a_token_never_travels_unencrypted() -> None:
    """A token to another machine needs an authority."""
    with pytest.raises(InvalidArgument, match="unencrypted"):
        open_channel("example.com:7101", TransportSettings(token="secret"))


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    """A wrong path is an error that names it."""
    with pytest.raises(InvalidArgument, match=r"absent\.pem.*No such file"):
        open_channel("example.com:7101", TransportSettings(ca=tmp_path / "absent.pem"))


def test_tls_with_the_right_authority_works_and_with_none_does_not(scheduler: FakeScheduler, tmp_path: Path) -> None:
    """The authority's file opens the way; a client that speaks plain text, or trusts another one, gets no answer."""
    certificates = make_certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    pair = (certificates.key.read_bytes(), certificates.cert.read_bytes())
    with fake_scheduler.serve(scheduler, credentials=grpc.ssl_server_credentials([pair])) as address:
        with Client(scheduler=address, ca=certificates.ca, token="secret") as client:
            assert client.jobs.read("my-job").name == JOB
        for ca in (None, other.ca):
            with Client(scheduler=address, ca=ca, patience_s=0.2) as client, pytest.raises(Unavailable):
                client.jobs.read("my-job")
    assert [headers["authorization"] for headers in scheduler.headers] == ["Bearer secret"]
