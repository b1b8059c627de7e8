"""One event file a job, which TensorBoard reads; needs the extra `tensorboard`.

The same log gives the same bytes, so a second export takes the place of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tuneforge.exports.history import Point, Rewind
from tuneforge.job_values import Job

EXTRA = "tensorboard"


class TensorBoardExport:
    """Writes a job's event file; use it with `with`.

    `begin` with the points that are known puts the file in its place whole; `add` goes on with it.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the log folder, in which each job has a run of its own.

        Raises:
            ImportError: The extra is not installed.
        """
        import tensorboardX.record_writer  # noqa: F401 - to fail before the log is read

        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def begin(self, job: Job, points: Iterable[Point]) -> str:
        """Writes what is known so far and returns the path of the file."""
        from tensorboardX.record_writer import RecordWriter

        folder = self._folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        created = int(job.create_time.timestamp()) if job.create_time else 0
        path = folder / f"events.out.tfevents.{created}.{job.id}"
        temporary = folder / f".{job.id}.writing"
        temporary.unlink(missing_ok=True)
        self._writer = RecordWriter(str(temporary))
        self._write([_event(datetime.fromtimestamp(created, UTC), 0, file_version="brain.Event:2")])
        self.add(list(points))
        self._writer.flush()
        temporary.replace(path)
        return str(path)

    def add(self, changes: Sequence[Point | Rewind]) -> None:
        """Adds what is new."""
        if changes:
            self._write(_events(changes))
            self._writer.flush()

    def end(self, job: Job) -> None:
        """The job has ended: nothing more is to be said in a file."""

    def _write(self, events: Iterable[Any]) -> None:
        for event in events:
            self._writer.write(event.SerializeToString())


def _events(changes: Iterable[Point | Rewind]) -> Iterator[Any]:
    from tensorboardX.proto.event_pb2 import SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

    for change in changes:
        if isinstance(change, Rewind):
            # TensorBoard drops what it has read from this step on.
            yield _event(change.time, change.step, session_log=SessionLog(status=SessionLog.START))
        else:
            value = Summary.Value(tag=change.name, simple_value=change.value)
            yield _event(change.time, change.step, summary=Summary(value=[value]))


def _event(time: datetime, step: int, **content: Any) -> Any:
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.timestamp(), step=step, **content)
