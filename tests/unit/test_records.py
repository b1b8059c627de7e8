"""The record of a run: whoever has the events computes the same head, and what was changed is named."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.store.events import chain
from services.scheduler.wire import batch_bytes
from tuneforge.records import Chain, check_record, event_bytes, first_head, mark_of
from tuneforge.v1 import events_pb2
from tuneforge.values import RunRecord

JOB = "projects/p/jobs/j"
Batches = list[tuple[list[events_pb2.Event], list[int]]]


def step(number: int, loss: float = 0.5) -> events_pb2.Event:
    """Returns the event of an optimiser step."""
    return events_pb2.Event(job=JOB, job_seq=number, step=events_pb2.StepMetrics(step=number, loss=loss))


def recorded(events: list[events_pb2.Event]) -> tuple[RunRecord, list[int]]:
    """Returns the record of a run and the marks of its events."""
    heads = chain(first_head(JOB), [event_bytes(event) for event in events])
    return RunRecord(num_events=len(events), head=heads[-1].hex()), list(map(mark_of, heads))


def test_the_chain_is_what_its_description_says() -> None:
    """Anyone can compute it with a hash function alone."""
    head = sha256(b"tuneforge-run-record-v1\n" + JOB.encode()).digest()
    for number in (1, 2):
        head = sha256(head + step(number).SerializeToString(deterministic=True)).digest()
    assert recorded([step(1), step(2)])[0] == RunRecord(num_events=2, head=head.hex())


def test_a_stored_batch_is_one_that_protobuf_reads() -> None:
    """The bytes that are kept are those of the message, long events included; batches merge with their marks."""
    events = [step(1), events_pb2.Event(job=JOB, job_seq=2, log=events_pb2.LogLine(message="x" * 300))]
    marks = recorded(events)[1]
    encoded = [event_bytes(event) for event in events]
    batch = events_pb2.EventBatch.FromString(batch_bytes(encoded, marks))
    assert batch == events_pb2.EventBatch(events=events, marks=marks)
    batch.MergeFromString(batch_bytes(encoded[:1], marks[:1]))
    assert list(batch.marks) == [*marks, marks[0]]


@settings(max_examples=30)
@given(count=st.integers(1, 30), data=st.data())
def test_a_changed_event_is_named(count: int, data: st.DataObject) -> None:
    """Whatever the batches: what was recorded is intact; a changed, dropped or doubled event is found and named."""
    events = [step(number) for number in range(1, count + 1)]
    record, marks = recorded(events)
    cuts = sorted(data.draw(st.sets(st.integers(1, count))) | {0, count})

    def batches(found: list[events_pb2.Event], their: list[int]) -> Batches:
        return [(found[a:b], their[a:b]) for a, b in zip(cuts, [*cuts[1:], len(found)], strict=True)]

    assert check_record(JOB, "v", record, batches(events, marks)).is_intact
    assert check_record(JOB, "v", record, batches([*events, step(count + 1)], [*marks, 7])).is_intact
    victim = data.draw(st.integers(0, count - 1))
    changed = [*events[:victim], step(victim + 1, 0.4999), *events[victim + 1 :]]
    check = check_record(JOB, "v", record, batches(changed, marks))
    assert (check.is_intact, check.first_difference) == (False, victim + 1)
    dropped = check_record(JOB, "v", record, batches(events[:victim] + events[victim + 1 :], marks[:victim]))
    assert (dropped.is_intact, dropped.first_difference) == (False, victim + 1)


def test_a_log_written_anew_is_found_by_the_head_of_the_version() -> None:
    """Who writes the whole log anew, marks and all, cannot make it give the head that the version has."""
    record, _ = recorded([step(1), step(2)])
    events = [step(1), step(2, 0.1)]
    check = check_record(JOB, "v", record, [(events, recorded(events)[1])])
    assert (check.is_intact, check.first_difference) == (False, None)
    assert "written anew" in check.problem


@pytest.mark.parametrize("other", ["projects/p/jobs/k", "projects/q/jobs/j"])
def test_a_record_is_that_of_its_job(other: str) -> None:
    """The same events under another job's name give another head."""
    mine, theirs = Chain(JOB), Chain(other)
    for each in (mine, theirs):
        each.add([step(1)], [], limit=1)
    assert mine.head != theirs.head
