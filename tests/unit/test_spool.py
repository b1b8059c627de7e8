"""The spool: dense numbers, torn records, acknowledgement, bounds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.trainer.events import EventLog, glance, parse
from services.trainer.spool import Record, SpoolGone, SpoolReader, SpoolWriter, drop_acknowledged, segments
from tuneforge.names import AttemptName
from tuneforge.v1 import events_pb2

KIB = 1024


def _writer(folder: Path, *, limit_bytes: int = 1 << 20, segment_bytes: int = 256) -> SpoolWriter:
    return SpoolWriter(
        folder,
        make_gap=lambda seq, dropped, kind: f"gap {seq} {dropped} {kind}".encode(),
        limit_bytes=limit_bytes,
        segment_bytes=segment_bytes,
    )


def _numbered(text: str = "event") -> Callable[[int], bytes]:
    return lambda seq: f"{text} {seq}".encode()


def _read_all(folder: Path, after_seq: int = 0) -> list[Record]:
    reader = SpoolReader(folder, after_seq=after_seq)
    found: list[Record] = []
    while records := reader.read(limit=7):
        found += records
    reader.close()
    return found


def _fill(folder: Path, count: int) -> None:
    log = _writer(folder)
    for _ in range(count):
        log.append("step", _numbered())
    log.close()


def test_events_come_back_in_order_with_dense_numbers(tmp_path: Path) -> None:
    """What was appended is read in order, over many segments."""
    _fill(tmp_path, 200)
    assert len(segments(tmp_path)) > 10
    assert _read_all(tmp_path) == [Record(seq, f"event {seq}".encode()) for seq in range(1, 201)]


@settings(max_examples=25, deadline=None)
@given(after=st.integers(0, 60))
def test_reading_begins_anywhere(tmp_path_factory: pytest.TempPathFactory, after: int) -> None:
    """A reader that has the first n events gets exactly the others."""
    folder = tmp_path_factory.mktemp("spool")
    _fill(folder, 60)
    assert [record.seq for record in _read_all(folder, after)] == list(range(after + 1, 61))


def test_reader_follows_a_writer_over_segments(tmp_path: Path) -> None:
    """Events are seen as soon as they are appended, also when a segment is closed in between."""
    log = _writer(tmp_path)
    reader = SpoolReader(tmp_path)
    assert reader.read() == []
    for seq in range(1, 50):
        log.append("step", _numbered())
        assert [record.seq for record in reader.read()] == [seq]
    log.close()
    reader.close()


def test_up_to_seq_is_not_passed(tmp_path: Path) -> None:
    """A reader can be held at a number and goes on from there later."""
    _fill(tmp_path, 30)
    reader = SpoolReader(tmp_path)
    assert [record.seq for record in reader.read(up_to_seq=12)] == list(range(1, 13))
    assert reader.read(up_to_seq=12) == []
    assert reader.read(up_to_seq=30)[0].seq == 13
    reader.close()


@pytest.mark.parametrize("cut", [1, 5, 8, 9, 14])
def test_torn_last_record_is_ignored_and_then_replaced(tmp_path: Path, cut: int) -> None:
    """A record that a power cut tore is not read, and the next writer gives its number to a whole one."""
    _fill(tmp_path, 10)
    path = segments(tmp_path)[-1][1]
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert [record.seq for record in _read_all(tmp_path)] == list(range(1, 10))
    log = _writer(tmp_path)
    assert log.append("step", _numbered("again")) == 10
    log.close()
    assert _read_all(tmp_path)[-1] == Record(10, b"again 10")


@pytest.mark.parametrize("tail", [b"\0" * 64, b"\xff" * 64, b"\x05\0\0\0\x01\x02\x03\x04hello"])
def test_garbage_after_the_last_record_is_ignored(tmp_path: Path, tail: bytes) -> None:
    """Zeros, noise and a record with a wrong checksum at the end are no events, and a new writer cuts them off."""
    _fill(tmp_path, 3)
    path = segments(tmp_path)[-1][1]
    with path.open("ab") as file:
        file.write(tail)
    assert [record.seq for record in _read_all(tmp_path)] == [1, 2, 3]
    log = _writer(tmp_path)
    log.append("step", _numbered())
    log.close()
    assert [record.seq for record in _read_all(tmp_path)] == [1, 2, 3, 4]


def test_acknowledging_removes_whole_segments_only(tmp_path: Path) -> None:
    """Every event after the acknowledged number stays, and so does the newest segment."""
    _fill(tmp_path, 100)
    firsts = [first for first, _ in segments(tmp_path)]
    drop_acknowledged(tmp_path, firsts[3])  # the first event of the fourth segment, whose others are still wanted
    assert [first for first, _ in segments(tmp_path)] == firsts[3:]
    drop_acknowledged(tmp_path, 100)
    assert [first for first, _ in segments(tmp_path)] == firsts[-1:]
    with pytest.raises(SpoolGone) as gone:
        _read_all(tmp_path, after_seq=0)
    assert gone.value.oldest_seq == firsts[-1]
    log = _writer(tmp_path)
    assert log.append("step", _numbered()) == 101
    log.close()


def test_slow_reader_is_told_when_its_events_are_gone(tmp_path: Path) -> None:
    """A reader inside a segment that is acknowledged away finishes it, and then hears what the oldest event is."""
    _fill(tmp_path, 100)
    reader = SpoolReader(tmp_path)
    assert reader.read(limit=1)[0].seq == 1
    drop_acknowledged(tmp_path, 100)
    rest = reader.read(limit=500)
    assert [record.seq for record in rest] == list(range(2, 2 + len(rest)))
    with pytest.raises(SpoolGone):
        reader.read()
    reader.close()


def test_full_spool_stops_device_samples_first_and_one_gap_says_so(tmp_path: Path) -> None:
    """Near the limit device samples stop, at it log lines, steps never; each gap is told once, with its count."""
    log = _writer(tmp_path, limit_bytes=4 * KIB, segment_bytes=512)
    dropped = {"device": 0, "log": 0, "step": 0}
    for _ in range(150):
        for kind in dropped:
            if log.append(kind, _numbered(kind * 4)) is None:
                dropped[kind] += 1
    assert dropped["step"] == 0
    assert dropped["device"] > dropped["log"] > 0
    log.append("outcome", _numbered("outcome"))
    log.close()
    payloads = [record.payload.decode() for record in _read_all(tmp_path)]
    gaps = [payload.split()[2:] for payload in payloads if payload.startswith("gap")]
    assert sorted(gaps, key=lambda gap: gap[1]) == [[str(dropped["device"]), "device"], [str(dropped["log"]), "log"]]
    assert payloads[-1].startswith("outcome")
    assert [record.seq for record in _read_all(tmp_path)] == list(range(1, len(payloads) + 1))


def test_acknowledged_spool_takes_samples_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once segments were acknowledged, samples go on after one Gap event."""
    now = 100.0
    monkeypatch.setattr("services.trainer.spool.time.monotonic", lambda: now)
    log = _writer(tmp_path, limit_bytes=2 * KIB, segment_bytes=256)
    while (last := log.append("device", _numbered())) is not None:
        newest = last
    drop_acknowledged(tmp_path, newest)
    now += 1.0
    assert log.append("device", _numbered()) == newest + 2
    log.close()
    assert [record.payload for record in _read_all(tmp_path, newest)] == [
        f"gap {newest + 1} 1 device".encode(),
        f"event {newest + 2}".encode(),
    ]


def test_full_disk_drops_samples_and_keeps_room_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no space left a sample is dropped, and the ballast makes room for an event that must not be lost."""
    log = _writer(tmp_path)
    log.append("step", _numbered())
    real_write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if (tmp_path / "ballast").exists():
            raise OSError(errno.ENOSPC, "no space left on device")
        return real_write(descriptor, data)

    monkeypatch.setattr("services.trainer.spool.os.write", full)
    assert log.append("device", _numbered()) is None
    assert log.append("outcome", _numbered()) == 2
    log.close()
    assert [record.seq for record in _read_all(tmp_path)] == [1, 2]


def test_events_carry_their_place(tmp_path: Path) -> None:
    """An event in the spool knows its job, attempt, rank and number, and the agent reads what it needs of it."""
    log = EventLog(tmp_path, AttemptName.parse("projects/p/jobs/j/attempts/3"), 1)
    log.emit(events_pb2.StepMetrics(step=7, loss=1.5))
    log.change_state("STARTING", "RUNNING", "INPUTS_READY", "go")
    log.emit(events_pb2.AttemptOutcome(result=events_pb2.ATTEMPT_RESULT_SUCCEEDED, step=8))
    log.close()
    events = [parse(record.payload) for record in _read_all(tmp_path)]
    assert [(event.job, event.attempt, event.node_rank, event.seq) for event in events] == [
        ("projects/p/jobs/j", 3, 1, seq) for seq in (1, 2, 3)
    ]
    assert all(event.time.seconds > 0 for event in events)
    glances = [glance(record.payload) for record in _read_all(tmp_path)]
    assert [each.kind for each in glances] == ["step", "state", "outcome"]
    assert (glances[0].step, glances[1].state, glances[2].step) == (7, "RUNNING", 8)


def test_overlong_texts_are_cut(tmp_path: Path) -> None:
    """A log line that no message could carry is shortened instead of ending the run."""
    log = EventLog(tmp_path, AttemptName.parse("projects/p/jobs/j/attempts/1"), 0)
    log.log("x" * 3_000_000)
    log.close()
    assert len(parse(_read_all(tmp_path)[0].payload).log.message) == 64 * KIB


def test_what_is_no_payload_is_refused(tmp_path: Path) -> None:
    """Only what `Event.payload` has can be written."""
    log = EventLog(tmp_path, AttemptName.parse("projects/p/jobs/j/attempts/1"), 0)
    with pytest.raises(ValueError, match="no payload"):
        log.emit(events_pb2.EventBatch())
    log.close()
