"""Looks whether a scheduler's database keeps what the scheduler promises. Reads only.

`examine` judges one moment, `compare` two moments of the same database; `python -m services.scheduler.doctor` does the
first for people. The tests with faults ask the same two functions, so what they find is what users can look for.
"""

from services.scheduler.doctor.checkup import examine
from services.scheduler.doctor.finding import Finding
from services.scheduler.doctor.history import Snapshot, compare, snapshot

__all__ = ["Finding", "Snapshot", "compare", "examine", "snapshot"]
