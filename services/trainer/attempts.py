"""One attempt as its node sees it: its files, what its events have told so far, and who waits for more.

Nothing here waits or decides; `supervision.py` does the first and `agent.py` the second. Not safe for use from several
threads: all of it belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from services.trainer.adoption import ProcessIdentity
from services.trainer.ends import AttemptState, End, Outcome, read_outcome
from services.trainer.events import glance
from services.trainer.folders import AttemptFolder, read_json, write_json
from services.trainer.orders import Assignment, StopOrder
from services.trainer.spool import SpoolGone, SpoolReader, segments
from services.trainer.stalls import Stall


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """An attempt at one moment."""

    name: str
    """`projects/{project}/jobs/{job}/attempts/{attempt}`."""
    node_rank: int
    """Rank of this node inside the attempt."""
    state: AttemptState
    """Its state."""
    last_seq: int
    """Number of the newest event in its spool; 0: none yet."""
    acked_seq: int
    """Number up to which events were acknowledged and may be gone."""
    step: int
    """Last finished optimiser step."""
    accepted_at: float
    """When it was accepted, Unix time in seconds."""
    rendezvous: str = ""
    """`host:port` at which the workers of other nodes meet this one; only rank 0 of several has it."""
    stall: Stall | None = None
    """Set while it makes no progress."""
    end: End | None = None
    """Set once its process has ended."""

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> AttemptView:
        """Reads what `to_json` gave."""
        end = content["end"]
        state = AttemptState(content["state"])
        return cls(**{**content, "state": state, "stall": None, "end": End.from_json(end) if end else None})


class AttemptObserver(Protocol):
    """Someone who is told what happens in the attempts of a node."""

    def saw(self, attempt: Attempt, payload: bytes) -> None:
        """Takes the next event of an attempt, as bytes."""
        ...

    def ended(self, attempt: Attempt, end: End) -> None:
        """Takes that its process has ended."""
        ...


class Attempt:
    """The files of an attempt and what is known of it."""

    def __init__(self, folder: AttemptFolder, assignment: Assignment, observer: AttemptObserver | None = None) -> None:
        """Takes up what its folder has; `observer` is told of every event from now on."""
        self._observer = observer
        self.folder = folder
        self.assignment = assignment
        self.stop_order = StopOrder.read(folder.stop)
        ended = read_json(folder.end)
        self.end = End.from_json(ended) if ended else None
        self.outcome: Outcome | None = None
        self.stall: Stall | None = None
        self.is_ended_for_stall = False
        self.memory_peak_bytes = 0
        self.watchers = 0
        self.acked_seq = 0
        self._step = 0
        self._is_training = False
        self._rendezvous = ""
        oldest = segments(folder.spool)
        if oldest:
            self.acked_seq = oldest[0][0] - 1
        self._reader = SpoolReader(folder.spool, after_seq=self.acked_seq)
        self._changed = asyncio.Event()
        self._attention = asyncio.Event()

    @property
    def id(self) -> tuple[str, int]:
        """Name and rank: what a caller knows it by."""
        return str(self.assignment.name), self.assignment.node_rank

    @property
    def last_seq(self) -> int:
        """Number of the newest event that was seen."""
        return self._reader.position

    @property
    def oldest_seq(self) -> int:
        """Number of the oldest event in the spool; one more than the newest when there is none."""
        found = segments(self.folder.spool)
        return found[0][0] if found else self.last_seq + 1

    @property
    def worker(self) -> ProcessIdentity | None:
        """The worker's process as it has identified itself; `None` before."""
        content = read_json(self.folder.worker)
        return ProcessIdentity.from_json(content) if content else None

    def view(self) -> AttemptView:
        """Returns the attempt as it is known now."""
        if self.end is not None:
            state = self.end.state
        elif self.stop_order is not None:
            state = AttemptState.STOPPING
        else:
            state = AttemptState.RUNNING if self._is_training else AttemptState.STARTING
        name, node_rank = self.id
        return AttemptView(
            name=name,
            node_rank=node_rank,
            state=state,
            last_seq=self.last_seq,
            acked_seq=self.acked_seq,
            step=self._step,
            accepted_at=self.assignment.accepted_at,
            rendezvous=self._rendezvous,
            stall=self.stall if self.end is None else None,
            end=self.end,
        )

    def view_before_end(self) -> AttemptView:
        """Returns the attempt as it was just before its end."""
        view = self.view()
        return replace(view, state=AttemptState.STOPPING if self.stop_order else AttemptState.RUNNING, end=None)

    def refresh(self) -> bool:
        """Reads the events that have come; returns whether there were any."""
        try:
            records = self._reader.read()
        except SpoolGone as gone:  # only after someone has removed segments by hand
            self._reader = SpoolReader(self.folder.spool, after_seq=gone.oldest_seq - 1)
            return self.refresh()
        if records and not self._rendezvous:  # the worker writes it before its first event
            self._rendezvous = (read_json(self.folder.rendezvous) or {}).get("address", "")
        for record in records:
            if self._observer is not None:
                self._observer.saw(self, record.payload)
            seen = glance(record.payload)
            if seen.step is not None:
                self._step = seen.step
            if seen.state:
                self._is_training = seen.state == AttemptState.RUNNING
            self.memory_peak_bytes = max(self.memory_peak_bytes, seen.memory_peak_bytes)
            if seen.outcome is not None:
                self.outcome = read_outcome(seen.outcome)
        if records:
            self.tell()
        return bool(records)

    def refresh_unless_ended(self) -> None:
        """Reads the events that have come; an ended attempt has told all."""
        if self.end is None:
            self.refresh()

    async def catch_up(self) -> None:
        """Reads all events that have come, letting others run in between."""
        while True:
            if not self.refresh():
                break
            await asyncio.sleep(0)
        if self.end is not None:
            self._reader.close()

    def finish(self, end: End) -> None:
        """Writes down that the attempt has ended, and how."""
        write_json(self.folder.end, end.to_json())
        self.end = end
        if self._observer is not None:
            self._observer.ended(self, end)
        self._reader.close()
        self.tell()

    def tell(self) -> None:
        """Wakes everyone who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def next_change(self) -> asyncio.Event:
        """Returns the event that is set at the next change; take it before looking, or a change is missed."""
        return self._changed

    def call_attention(self) -> None:
        """Lets the supervisor look at once: something was ordered, someone watches, or the process has ended."""
        self._attention.set()

    async def wait_for_attention(self, timeout_s: float) -> None:
        """Returns at the next call of `call_attention`, one that came before included, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # `wait_for` loses a cancel that comes with what it waits for
                await self._attention.wait()
        self._attention.clear()
