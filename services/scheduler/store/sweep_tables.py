"""Tables of sweeps and their trials. Times are milliseconds since 1970, as in `tables.py`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from services.scheduler.store.tables import metadata

_Number = BigInteger().with_variant(Integer, "sqlite")

sweeps = Table(
    "sweeps",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True, comment="order of creation; never used again"),
    Column("project", String(63), nullable=False),
    Column("sweep_id", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("creator", String(256), nullable=False),
    Column("labels", Text, nullable=False, comment="JSON object"),
    Column("spec", LargeBinary, nullable=False, comment="TrainingSpec with pinned names and without defaults"),
    Column("plan", LargeBinary, nullable=False, comment="SweepPlan with defaults"),
    Column("combinations", BigInteger, nullable=False, comment="points of the space; 0: no end of them"),
    Column("cost", LargeBinary, nullable=False, comment="SweepCost"),
    Column("versions", Text, nullable=False, comment="JSON list of versions that its trials read"),
    Column("rounds_done", Integer, nullable=False, default=0, comment="rounds that take no more trials"),
    Column("failure", LargeBinary, comment="Failure; with FAILED, and with STOPPING before it"),
    Column("revision", BigInteger, nullable=False, default=1, comment="grows with each change of it or of a trial"),
    Column("create_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    UniqueConstraint("project", "sweep_id", name="sweeps_name"),
    Index("sweeps_by_project", "project", "number"),
    Index("sweeps_by_state", "state"),
    sqlite_autoincrement=True,
)

trials = Table(
    "trials",
    metadata,
    Column("sweep", _Number, ForeignKey("sweeps.number"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="from 1, dense"),
    Column("round", Integer, nullable=False, comment="from 1"),
    Column("point", Text, nullable=False, comment="JSON object: field -> value"),
    Column("digest", String(64), nullable=False, comment="of parameters and share of the data"),
    Column("state", String(16), nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("job", _Number, ForeignKey("jobs.number"), comment="NULL: its parameters were refused"),
    Column("value", Double),
    Column("reports", Text, nullable=False, default="[]", comment="JSON list of pairs: step, value"),
    Column("rungs", Integer, nullable=False, default=0, comment="rungs of successive halving that it is past"),
    Column("stop_step", BigInteger, nullable=False, default=0, comment="where it was found not worth its device"),
    Column("is_paused", Boolean, nullable=False, default=False, comment="its job was paused with the sweep"),
    Column("read_seq", BigInteger, nullable=False, default=0, comment="events up to this one are in reports"),
    Column("revision", BigInteger, nullable=False, comment="of the sweep at its last change"),
    Column("create_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    UniqueConstraint("sweep", "digest", name="trials_digest"),
    Index("trials_by_job", "job"),
)
