"""The scheduler's tables. Times are integers: milliseconds since 1970, by the database's clock.

Messages that are only stored and handed on (specs, inputs, failures, events) are columns of bytes: serialised protobuf.
What SQL decides on has a column of its own.
"""

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
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite numbers only a column of type INTEGER by itself.
_Number = BigInteger().with_variant(Integer, "sqlite")

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True, comment="order of creation; never used again"),
    Column("uid", BigInteger, nullable=False, comment="random identity that resume tokens carry"),
    Column("project", String(63), nullable=False),
    Column("job_id", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("from_state", String(16), nullable=False, default=""),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("creator", String(256), nullable=False),
    Column("labels", Text, nullable=False, comment="JSON object"),
    Column("spec", LargeBinary, nullable=False, comment="TrainingSpec with defaults and pinned names"),
    Column("inputs", LargeBinary, comment="StartAttemptRequest with base, train, validation; NULL while BLOCKED"),
    Column("estimate", LargeBinary, comment="MemoryEstimate"),
    Column("resource_estimate", LargeBinary, comment="ResourceEstimate; of releases without: NULL"),
    Column("base_version", Text),
    Column("base_digest", String(64)),
    Column("train_version", Text, nullable=False),
    Column("train_digest", String(64), nullable=False),
    Column("validation_version", Text),
    Column("validation_digest", String(64)),
    Column("architecture_version", Text, comment="version whose architecture the base will have, also while BLOCKED"),
    Column("output_model", Text, nullable=False),
    Column("depends_on", _Number, ForeignKey("jobs.number"), comment="job whose output is the base"),
    Column("nodes", Integer, nullable=False, default=1, comment="nodes that train together"),
    Column("devices", Integer, comment="accelerators asked for; NULL: one where a node has some"),
    Column("peak_bytes", BigInteger, nullable=False, default=0, comment="predicted peak on a host; 0: not known"),
    Column("device_peak_bytes", BigInteger, comment="the same on an accelerator; of releases without: NULL"),
    Column("beside_bytes", BigInteger, comment="the same on the host beside an accelerator; as above"),
    Column("host_bytes", BigInteger, nullable=False, default=0, comment="host memory asked for"),
    Column("cpu_millis", BigInteger, nullable=False, default=0),
    Column("node_labels", Text, nullable=False, comment="JSON object"),
    Column("lost_after_ms", BigInteger, nullable=False),
    Column("keep_checkpoints", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0, comment="attempts so far"),
    Column("token", BigInteger, nullable=False, default=0, comment="fencing token of the newest attempt"),
    Column("faults", Integer, nullable=False, default=0, comment="infrastructure faults so far"),
    Column("not_before_ms", BigInteger, nullable=False, default=0, comment="QUEUED: no attempt before this"),
    Column("failure", LargeBinary, comment="Failure; with FAILED"),
    Column("resolved", LargeBinary, comment="Resolved of the first attempt that got so far, or lowered"),
    Column("version", Text, comment="published version; with SUCCEEDED"),
    Column("digest", String(64)),
    Column("step", BigInteger, nullable=False, default=0),
    Column("total_steps", BigInteger, nullable=False, default=0),
    Column("create_ms", BigInteger, nullable=False),
    Column("start_ms", BigInteger),
    Column("end_ms", BigInteger),
    Column("latest_seq", BigInteger, nullable=False, default=0, comment="job_seq of the newest event"),
    Column("best_step", BigInteger, nullable=False, default=0, comment="step of the lowest validation loss; 0: none"),
    Column("origin_name", Text, comment="checkpoint that its first attempt begins from; NULL: the beginning"),
    Column("origin_manifest", LargeBinary, comment="Manifest of that checkpoint"),
    Column("verifies", LargeBinary, comment="ResumeVerification; NULL: it is a run that publishes"),
    Column("scheduling", LargeBinary, comment="Scheduling; of releases without: NULL"),
    Column("priority", BigInteger, nullable=False, default=0, comment="class; a higher one goes first"),
    Column("is_preemptible", Boolean, nullable=False, default=True),
    Column("start_after_ms", BigInteger),
    Column("deadline_ms", BigInteger),
    Column("is_late", Boolean, nullable=False, default=False, comment="it was said that it will miss its deadline"),
    Column("exclusions", Text, nullable=False, default="", comment="JSON: nodes, labels, kinds; empty: none"),
    Column("predicted_ms", BigInteger, nullable=False, default=0, comment="predicted length of the run; 0: not known"),
    Column("queued_ms", BigInteger, nullable=False, default=0, comment="since when it waits, or began to wait last"),
    Column("lost_preempted_ms", BigInteger, nullable=False, default=0, comment="device-milliseconds, as those below"),
    Column("lost_faults_ms", BigInteger, nullable=False, default=0),
    Column("saved_ms", BigInteger, nullable=False, default=0),
    Column("preemptions", Integer, nullable=False, default=0),
    Column("record_head", LargeBinary, comment="head of the hash chain over all events; NULL before the first"),
    Column("change_seq", BigInteger, nullable=False, default=0, comment="its newest change, in the order of all jobs"),
    Column("previous_change", BigInteger, nullable=False, default=0, comment="the change before that; 0: none"),
    Column("first_change", BigInteger, nullable=False, default=0, comment="the change that made it"),
    Column("log_bytes", BigInteger, nullable=False, default=0, comment="size of its event log"),
    Column("compacted_seq", BigInteger, nullable=False, default=0, comment="events up to this one were thinned out"),
    Column("removed_events", BigInteger, nullable=False, default=0, comment="events that were taken out by that"),
    Column("compacted_head", LargeBinary, comment="head of the hash chain after event compacted_seq"),
    Column("compact_ms", BigInteger, comment="when that was done last"),
    Column("attained_ms", BigInteger, nullable=False, default=0, comment="device-milliseconds of ended attempts"),
    Column("joules", Double, nullable=False, default=0.0, comment="energy of ended attempts"),
    Column("budget", LargeBinary, comment="Budget; NULL: none"),
    Column("retry", LargeBinary, comment="RetryPolicy; NULL: the scheduler's"),
    Column("user_faults", Integer, nullable=False, default=0, comment="faults of its own so far"),
    Column("fault_signature", Text, comment="reason and step of the newest fault of its own"),
    Column("rows_at_once", Integer, nullable=False, default=0, comment="most in its next attempt; 0: as it resolves"),
    Column("handled", Integer, nullable=False, default=0, comment="times it was taken up since it last went well"),
    Column("rerun_of", Text, comment="job whose pinned spec it has"),
    Column("training_digest", String(64), comment="of all that its result depends on; NULL while BLOCKED"),
    Column("reused_from", Text, comment="job whose version is its result; NULL: it trained"),
    Column("ttl_ms", BigInteger, comment="removed so long after its end; NULL: never"),
    Column("expire_ms", BigInteger, comment="when it is to be removed; NULL: never, or removed"),
    Column("trial", Text, comment="trial of a sweep that it is; NULL: none"),
    Column("goes_on_ms", BigInteger, comment="PAUSED: queued again by itself from then on; NULL: when it is resumed"),
    Column("removal", String(8), comment="NULL: it is there; else PENDING or DONE: only its name is"),
    UniqueConstraint("project", "job_id", name="jobs_name"),
    Index("jobs_by_project_state", "project", "state", "number"),
    Index("jobs_by_end", "project", "end_ms", "number"),
    # All that lists search in: the rows themselves are wide.
    Index(
        "jobs_by_search",
        *("project", "number", "job_id", "creator", "base_version", "train_version", "output_model", "create_ms"),
        *("priority", "trial"),
    ),
    Index("jobs_by_training", "project", "training_digest"),
    Index("jobs_by_expiry", "expire_ms"),
    Index("jobs_by_removal", "removal"),
    Index("jobs_by_project", "project", "number"),
    Index("jobs_by_state", "state"),
    Index("jobs_by_dependency", "depends_on"),
    Index("jobs_by_change", "change_seq"),
    sqlite_autoincrement=True,
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), primary_key=True),
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
)
"""The labels of jobs once more, for lists: those in `jobs.labels` are what a job shows."""

attempts = Table(
    "attempts",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("node_rank", Integer, primary_key=True, autoincrement=False, comment="one row for each node of the attempt"),
    Column("nodes", Integer, nullable=False, comment="nodes of the attempt"),
    Column("node", String(63), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("is_confirmed", Boolean, nullable=False, default=False, comment="its node has said that it holds it"),
    Column("is_closed", Boolean, nullable=False, default=False, comment="its node knows that the end is kept here"),
    Column("is_broken", Boolean, nullable=False, default=False, comment="another part has ended badly: it is to stop"),
    Column(
        "is_leaving", Boolean, nullable=False, default=False, comment="another part has saved and left: so is it to"
    ),
    Column("rendezvous", Text, nullable=False, default="", comment="where rank 0 waits for the others"),
    Column("fault_budget", String(16), nullable=False, default="", comment="which one its end used; empty: none"),
    Column("rows_at_once", Integer, nullable=False, default=0, comment="most rows computed at once; 0: as it resolves"),
    Column("failure", LargeBinary),
    Column("outcome", LargeBinary, comment="AttemptOutcome"),
    Column("stall", LargeBinary, comment="Stall; while it makes no progress"),
    Column("resumed_step", BigInteger, nullable=False, default=0),
    Column("step", BigInteger, nullable=False, default=0),
    Column("last_seq", BigInteger, nullable=False, default=0, comment="high-water mark: seq of the newest event kept"),
    Column("create_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger),
    Column("slots", Integer, nullable=False, default=1, comment="devices that this part holds; on the CPU 1"),
    Column("watts", Double, nullable=False, default=0.0, comment="predicted power of a device; 0: not known"),
    Column("joules", Double, nullable=False, default=0.0, comment="energy by the node's counters; 0: not measured"),
    Column("first_step_ms", BigInteger, comment="when its first step had been made; NULL before"),
    Column("cause", String(16), nullable=False, default="", comment="why it ended early; empty: it did not, or runs"),
    UniqueConstraint("token", "node_rank", name="attempts_token"),
    Index("attempts_open", "is_closed"),
)

job_dependencies = Table(
    "job_dependencies",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
    Column("depends_on", _Number, ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("node", String(63), nullable=False, comment="node that has it; empty: none any more"),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("create_ms", BigInteger, nullable=False),
    Column("manifest", LargeBinary, comment="Manifest of the copy in the blob store; NULL: there is none"),
    Column("durable_ms", BigInteger),
    Column("is_pinned", Boolean, nullable=False, default=False),
)

blob_holds = Table(
    "blob_holds",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, comment="checkpoint whose blobs the registry is to keep, or may drop"),
    Column("manifest", LargeBinary, comment="Manifest of what is to be kept; NULL: what was kept may go"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True),
    Column("first_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="EventBatch with the events first_seq to last_seq"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node", String(63), primary_key=True),
    Column("address", Text, nullable=False),
    Column("capacity", LargeBinary, nullable=False, comment="NodeCapacity"),
    Column("labels", Text, nullable=False, comment="JSON object"),
    Column("generation", String(64), nullable=False),
    Column("version", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("unreachable_ms", BigInteger, comment="since when its lease is overdue"),
    Column("manager_token", String(64), nullable=False),
    Column("drain_ms", BigInteger, comment="since when it is to take no new work; NULL: it is not drained"),
    Column("drain_deadline_ms", BigInteger, comment="when what still runs on it is asked to leave; NULL: never"),
    Column("drain_reason", Text),
    Column("drain_actor", String(256)),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("job", _Number, ForeignKey("jobs.number"), nullable=False, unique=True),
    Column("token", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="PublishVersionRequest"),
    Column("create_ms", BigInteger, nullable=False),
)

measured_runs = Table(
    "measured_runs",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True, autoincrement=False),
    Column("family", String(128), nullable=False),
    Column("method", String(16), nullable=False),
    Column("compute", String(16), nullable=False, comment="as it was asked for"),
    Column("device", String(128), nullable=False),
    Column("train_digest", String(64), nullable=False),
    Column("row_tokens", Double, nullable=False),
    Column("arithmetic_bytes", BigInteger, nullable=False, comment="peak memory by arithmetic"),
    Column("real_bytes", BigInteger, nullable=False),
    Column("flops_per_token", Double, nullable=False),
    Column("tokens", Double, nullable=False),
    Column("seconds", Double, nullable=False, comment="in steps"),
    Column("joules", Double, nullable=False, comment="0: not measured"),
    Index("measured_runs_kind", "device", "method", "compute", "family"),
    Index("measured_runs_newest", "device", "method", "compute", "job"),
    Index("measured_runs_data", "train_digest", "job"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

clock_jumps = Table(
    "clock_jumps",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False, comment="what the clock said when it had been set"),
    Column("jump_ms", BigInteger, nullable=False, comment="how far it was set forward; below 0: back"),
)

queues = Table(
    "queues",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("queue", String(63), primary_key=True),
    Column("weight", Double, nullable=False),
    Column("max_devices", Integer, nullable=False, comment="devices at once; 0: no limit, as in the others"),
    Column("max_jobs", Integer, nullable=False, comment="jobs that hold devices at once"),
    Column("max_waiting_jobs", Integer, nullable=False, comment="jobs that wait; more are refused"),
    Column("window_device_ms", BigInteger, nullable=False, comment="device-milliseconds in the window"),
    Column("window_hours", Integer, nullable=False),
    Column("guaranteed_devices", Integer, nullable=False, comment="devices that others do not take away"),
    Column("budget", LargeBinary, comment="Budget; NULL: none"),
    Column("is_paused", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="grows with each change; the etag"),
    Column("update_ms", BigInteger, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("decayed_ms", Double, nullable=False, comment="device-milliseconds of ended attempts, halved each day"),
    Column("as_of_ms", BigInteger, nullable=False, comment="the moment that decayed_ms is of"),
    Column("device_ms", BigInteger, nullable=False, comment="device-milliseconds of all ended attempts"),
    Column("joules", Double, nullable=False),
)

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("project", String(63), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False, comment="hours since 1970"),
    Column("device_ms", BigInteger, nullable=False, comment="device-milliseconds of ended attempts in that hour"),
    Column("joules", Double, nullable=False, default=0.0, comment="their energy, spread evenly over each attempt"),
)
