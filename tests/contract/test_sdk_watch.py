"""The SDK's watch against a scheduler on a real socket whose streams break."""

import random
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_scheduler import JOB, FakeScheduler, serve
from tuneforge._connections import Service
from tuneforge._resumed_stream import WatchOptions
from tuneforge._transport import RetryPolicy, open_channel
from tuneforge._watch import JobWatch
from tuneforge.errors import InternalError, InvalidArgument, TuneforgeError, Unavailable
from tuneforge.events import StepMetrics
from tuneforge.v1 import events_pb2, jobs_pb2
from tuneforge.v1.scheduler_pb2_grpc import SchedulerServiceStub

QUICK = RetryPolicy(initial_s=0.001, max_s=0.002, budget_s=5.0)
CUTS = ("UNAVAILABLE", "draining", "eof", "CANCELLED", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED")


def some_events(count: int) -> list[events_pb2.Event]:
    """Makes `count` step events, numbered from 1."""
    return [
        events_pb2.Event(job=JOB, attempt=1, seq=n, job_seq=n, step=events_pb2.StepMetrics(step=n, loss=1 / n))
        for n in range(1, count + 1)
    ]


def connect(address: str) -> tuple[grpc.Channel, Service[SchedulerServiceStub]]:
    """Opens a channel to the fake, with short waits."""
    channel = open_channel(address)
    return channel, Service("scheduler", address, channel, SchedulerServiceStub(channel), QUICK)


@pytest.fixture
def fake() -> FakeScheduler:
    """A scheduler with a job of ten events."""
    return FakeScheduler(events=some_events(10))


@pytest.fixture
def scheduler(fake: FakeScheduler) -> Iterator[Service[SchedulerServiceStub]]:
    """A client's view of it."""
    with serve(fake) as address:
        channel, service = connect(address)
        with channel:
            yield service


def watch(service: Service[SchedulerServiceStub], cursor: str = "", **options: object) -> JobWatch:
    """Watches the fake's job."""
    return JobWatch(service, JOB, lambda _job: None, cursor=cursor, options=WatchOptions(**options))  # type: ignore[arg-type]


def test_a_watch_yields_every_event_and_ends_with_the_job(scheduler: Service[SchedulerServiceStub]) -> None:
    """Events are typed, dense from 1, and the iterator ends."""
    stream = watch(scheduler)
    events = list(stream)
    assert [event.job_seq for event in events] == list(range(1, 11))
    assert isinstance(events[3].payload, StepMetrics)
    assert events[3].payload.loss == 1 / 4
    assert stream.has_ended
    assert stream.latest_job_seq == 10


@pytest.mark.parametrize("cut", CUTS)
def test_a_broken_stream_is_opened_again_from_the_token(
    scheduler: Service[SchedulerServiceStub], fake: FakeScheduler, cut: str
) -> None:
    """However the stream ends before the job does, the watch goes on without gap or repeat, and says that it broke."""
    fake.cut = lambda stream, message: cut if stream < 2 and message == 3 else ""
    broken: list[TuneforgeError] = []
    assert [event.job_seq for event in watch(scheduler, on_break=broken.append)] == list(range(1, 11))
    assert len(broken) == 2
    assert [request.resume_token for request in fake.requests] == ["", "3", "6"]


@given(seed=st.integers(0, 2**32), count=st.integers(0, 60), batch=st.integers(1, 7))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_breaks_lose_and_repeat_nothing(seed: int, count: int, batch: int) -> None:
    """With streams cut in random ways at random places every event comes exactly once, in order."""
    dice = random.Random(seed)
    fake = FakeScheduler(events=some_events(count), batch=batch)
    fake.cut = lambda stream, _message: dice.choice(CUTS) if stream < 8 and dice.random() < 0.3 else ""
    with serve(fake) as address:
        channel, service = connect(address)
        with channel:
            assert [event.job_seq for event in watch(service)] == list(range(1, count + 1))


@pytest.mark.parametrize("taken", range(11))
def test_a_cursor_goes_on_after_the_last_event_taken(scheduler: Service[SchedulerServiceStub], taken: int) -> None:
    """A watch that is left in the middle of a batch is gone on with by another one, exactly."""
    with watch(scheduler) as first:
        begun = [next(first).job_seq for _ in range(taken)]
        cursor = first.cursor
    rest = [event.job_seq for event in watch(scheduler, cursor=cursor)]
    assert begun + rest == list(range(1, 11))


def test_a_silent_stream_is_opened_again(scheduler: Service[SchedulerServiceStub], fake: FakeScheduler) -> None:
    """A stream without a heartbeat for too long counts as broken."""
    fake.cut = lambda stream, message: "silence" if stream == 0 and message == 2 else ""
    assert [event.job_seq for event in watch(scheduler, silence_s=1.0)] == list(range(1, 11))
    assert fake.streams == 2


def test_a_restarted_scheduler_is_waited_for(fake: FakeScheduler) -> None:
    """The watch survives that nobody listens for a while, and goes on with another process at the same address."""
    fake.cut = lambda stream, message: "silence" if stream == 0 and message == 3 else ""
    broken: list[TuneforgeError] = []
    with ExitStack() as first_start:
        address = first_start.enter_context(serve(fake))
        channel, service = connect(address)
        with channel:
            stream = watch(service, on_break=broken.append)
            first = [next(stream).job_seq for _ in range(3)]
            first_start.close()
            with serve(FakeScheduler(events=some_events(10)), address):
                rest = [event.job_seq for event in stream]
    assert first + rest == list(range(1, 11))
    assert broken


def test_a_gap_in_the_log_is_an_error(scheduler: Service[SchedulerServiceStub], fake: FakeScheduler) -> None:
    """Events are never skipped silently."""
    del fake.events[4]
    with pytest.raises(InternalError, match="4 is followed by 6"):
        list(watch(scheduler))


def test_a_scheduler_that_never_answered_is_given_up_soon() -> None:
    """Before the first answer a watch has the patience of a call, and names the address."""
    with serve(FakeScheduler()) as address:
        pass
    channel, service = connect(address)
    hasty = Service(service.name, address, channel, service.stub, RetryPolicy(initial_s=0.001, budget_s=0.1))
    with channel, pytest.raises(Unavailable, match=address):
        list(watch(hasty))


def test_a_dead_scheduler_is_given_up_after_the_patience(fake: FakeScheduler) -> None:
    """After its first answer a watch waits for as long as it was told."""
    fake.cut = lambda _stream, message: "silence" if message == 3 else ""
    with serve(fake) as address:
        channel, service = connect(address)
        stream = watch(service, give_up_after_s=0.2)
        next(stream)
    with channel, pytest.raises(Unavailable):
        list(stream)


def test_a_closed_watch_ends(scheduler: Service[SchedulerServiceStub], fake: FakeScheduler) -> None:
    """Closing ends the iteration without an error."""
    fake.cut = lambda _stream, message: "silence" if message == 3 else ""
    with watch(scheduler) as stream:
        next(stream)
    assert list(stream) == []


def test_a_malformed_cursor_is_refused(scheduler: Service[SchedulerServiceStub]) -> None:
    """A text that is no cursor is refused before any call."""
    with pytest.raises(InvalidArgument, match="no cursor"):
        watch(scheduler, cursor="yesterday")


def test_the_snapshot_reaches_the_caller(scheduler: Service[SchedulerServiceStub]) -> None:
    """The job as it was at the opening is handed over."""
    seen: list[jobs_pb2.Job] = []
    list(JobWatch(scheduler, JOB, seen.append))
    assert [job.name for job in seen] == [JOB]
