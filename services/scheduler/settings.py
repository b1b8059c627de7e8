"""Settings of the scheduler: each knob with type, unit, default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.grpckit.database import PostgresAddress
from services.grpckit.settings import Environment, ServerSettings, peer_address
from services.scheduler.compaction.rules import NEWEST_MIN, CompactionPolicy
from services.scheduler.jobs import RetryPolicy
from services.scheduler.planning.queue import HOUR_MS, Rules
from services.scheduler.queues.budgets import Price

DEFAULT_PORT = 7102
REGISTRY_PORT = 7101


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often and how long; all in seconds."""

    heartbeat_interval_s: float = 1.0
    """How often a node renews its lease. 1: a dead node is seen within a lease, at one small write a second."""
    lease_ttl_s: float = 10.0
    """How long a lease lasts. 10: ten missed heartbeats, longer than a restart of the scheduler takes."""
    flush_s: float = 0.1
    """Shortest time between two commits of a job's events; after a pause the first one is committed at once. 0.1:
    nobody notices it as late, and a job costs at most ten synced writes a second."""
    watch_heartbeat_s: float = 10.0
    """Longest silence of a watch. 10: half-open connections are found within two of them."""
    feed_pause_s: float = 0.1
    """Least time between two looks for changed jobs on behalf of all who watch many. 0.1: nobody notices it as late,
    and a thousand changes a second cost ten reads."""
    board_pause_s: float = 0.5
    """Least time between two looks at the queue on behalf of all who watch it. 0.5: a person reads no faster."""
    longest_tick_s: float = 1.0
    """Longest sleep of the loop when nothing wakes it. 1: bounds what a missed wake-up can cost."""
    sweep_tick_s: float = 1.0
    """How often the values of a sweep's running trials are looked for. 1: a trial that is not worth its device holds it
    a second longer, and a search costs two small reads a second."""
    retry_first_s: float = 0.2
    """First wait before a call to a peer is repeated; doubles with each failure, half of it is jitter."""
    retry_longest_s: float = 5.0
    """Longest wait before a call to a peer is repeated."""
    holds_every_s: float = 60.0
    """Longest time between two comparisons of what jobs need with what the registry holds for them. 60: so long waits
    what a registry lost that was restored from a backup, and a hold for a job that was not stored after all."""
    holds_pause_s: float = 1.0
    """Shortest time between two of them. 1: jobs that end together are released together."""
    removal_every_s: float = 10.0
    """Longest time between two looks for jobs whose `ttl` is over. 10: nobody waits for it; a removal that is asked
    for begins at once."""
    stop_again_s: float = 5.0
    """How soon a stop is asked again when the attempt has not ended: a node may have been restarted over it."""
    stop_grace_s: float = 30.0
    """How long a cancelled attempt may take to stop before its process is ended: what bounds how late its device is
    free. 30: a long step of a large model fits into it. TUNEFORGE_SCHEDULER_STOP_GRACE_S."""
    save_grace_s: float = 300.0
    """The same when it is to save its state first: a pause, a job that gives way, a drained node. Then its process is
    ended and the job goes on from the checkpoint before. 300: a step and a checkpoint of a large model fit into it.
    TUNEFORGE_SCHEDULER_SAVE_GRACE_S."""
    publish_gives_up_s: float = 21600.0
    """How long a result is offered to a registry that answers neither yes, nor a known no, nor that it is away; then
    the job fails. 21600, six hours: long enough to mend a registry, and well before it collects the files.
    TUNEFORGE_SCHEDULER_PUBLISH_GIVES_UP_S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """All settings of the scheduler."""

    server: ServerSettings
    """Address, data folder, TLS, tokens, log level."""
    registry: str
    """Address of the registry, `host:port`."""
    timing: Timing = field(default_factory=Timing)
    """How often and how long."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """How infrastructure faults are retried."""
    order: Rules = field(default_factory=Rules)
    """How jobs are ordered and when running ones give way; see `order_from_env`."""
    price: Price = field(default_factory=Price)
    """What an hour of one device costs; estimates then name a cost. TUNEFORGE_SCHEDULER_PRICE_PER_DEVICE_HOUR and
    ..._PRICE_CURRENCY; default: no price, for it is the operator's."""
    compaction: CompactionPolicy = field(default_factory=CompactionPolicy)
    """How logs of ended jobs are thinned out; see `compaction_from_env`. Default: not at all."""
    postgres: PostgresAddress | None = None
    """The database on a PostgreSQL server; None: SQLite in the data folder. TUNEFORGE_SCHEDULER_DATABASE_URL with the
    password in ..._DATABASE_PASSWORD_FILE or ..._DATABASE_PASSWORD."""

    @classmethod
    def from_env(cls, env: Environment | None = None) -> SchedulerSettings:
        """Reads the environment.

        Raises:
            SettingsError: something in it is wrong; all of it is named.
        """
        reader = env or Environment()
        timing = Timing(
            heartbeat_interval_s=reader.seconds(
                "TUNEFORGE_SCHEDULER_HEARTBEAT_S", default=1.0, minimum=0.05, maximum=60
            ),
            lease_ttl_s=reader.seconds("TUNEFORGE_SCHEDULER_LEASE_TTL_S", default=10.0, minimum=0.2, maximum=3600),
            flush_s=reader.seconds("TUNEFORGE_SCHEDULER_FLUSH_S", default=0.1, minimum=0.001, maximum=5),
            watch_heartbeat_s=reader.seconds(
                "TUNEFORGE_SCHEDULER_WATCH_HEARTBEAT_S", default=10.0, minimum=0.05, maximum=300
            ),
            stop_grace_s=reader.seconds("TUNEFORGE_SCHEDULER_STOP_GRACE_S", default=30.0, minimum=1.0, maximum=600),
            save_grace_s=reader.seconds("TUNEFORGE_SCHEDULER_SAVE_GRACE_S", default=300.0, minimum=1.0, maximum=3600),
            publish_gives_up_s=reader.seconds(
                "TUNEFORGE_SCHEDULER_PUBLISH_GIVES_UP_S", default=21600.0, minimum=1.0, maximum=518400
            ),
        )
        if timing.lease_ttl_s < 2 * timing.heartbeat_interval_s:
            reader.refuse("TUNEFORGE_SCHEDULER_LEASE_TTL_S", "at least twice TUNEFORGE_SCHEDULER_HEARTBEAT_S")
        settings = cls(
            server=ServerSettings.from_env("scheduler", DEFAULT_PORT, env=reader),
            registry=peer_address("registry", REGISTRY_PORT, reader),
            timing=timing,
            retry=RetryPolicy(
                budget=reader.integer("TUNEFORGE_SCHEDULER_RETRY_BUDGET", default=5, minimum=0, maximum=100),
                first_delay_s=reader.seconds("TUNEFORGE_SCHEDULER_RETRY_FIRST_S", default=1.0, maximum=3600),
            ),
            order=order_from_env(reader),
            price=Price(
                per_device_hour=reader.number(
                    "TUNEFORGE_SCHEDULER_PRICE_PER_DEVICE_HOUR", default=0.0, minimum=0.0, maximum=1e6
                ),
                currency=reader.text("TUNEFORGE_SCHEDULER_PRICE_CURRENCY").strip(),
            ),
            compaction=compaction_from_env(reader),
            postgres=PostgresAddress.from_env("scheduler", reader),
        )
        if env is None:
            reader.finish()
        return settings


def compaction_from_env(reader: Environment) -> CompactionPolicy:
    """Reads how logs of ended jobs are thinned out.

    TUNEFORGE_SCHEDULER_COMPACT_AFTER_DAYS: days after its end that a job's log is thinned out. 0: never for its age,
    since what is taken out is gone. ..._COMPACT_ABOVE_MB: size of all logs in MB above which those that ended first are
    thinned out. 0: never for the size. ..._COMPACT_KEEP_EVERY: every so-many-th step and sample of devices stays. 10: a
    curve keeps its form. ..._COMPACT_KEEP_NEWEST: newest events of each job that stay as they are. 100.
    """
    plain = CompactionPolicy()
    return CompactionPolicy(
        after_s=86400
        * reader.number("TUNEFORGE_SCHEDULER_COMPACT_AFTER_DAYS", default=0.0, minimum=0.0, maximum=36500.0),
        above_bytes=1_000_000
        * reader.integer("TUNEFORGE_SCHEDULER_COMPACT_ABOVE_MB", default=0, minimum=0, maximum=10**9),
        keep_every=reader.integer(
            "TUNEFORGE_SCHEDULER_COMPACT_KEEP_EVERY", default=plain.keep_every, minimum=1, maximum=10**6
        ),
        keep_newest=reader.integer(
            "TUNEFORGE_SCHEDULER_COMPACT_KEEP_NEWEST", default=plain.keep_newest, minimum=NEWEST_MIN, maximum=10**9
        ),
    )


def order_from_env(reader: Environment) -> Rules:
    """Reads how jobs are ordered and when running ones give way.

    TUNEFORGE_SCHEDULER_PREEMPTION: whether running jobs give way to others at all. true: a stop costs a restore and
    no work. ..._QUANTUM_S: shortest time in seconds that a job runs before it gives way. 600: ten times what a restore
    takes. ..._RESERVE_AFTER_S: wait in seconds after which the first job that does not fit keeps others off the nodes
    that it needs. 600. ..._PROMOTE_AFTER_S: wait in seconds after which a job counts as one that has not run. 21600,
    six hours. ..._LEVELS_H: device-hours at which a job falls to the next level, ascending, with commas. 1,10: most
    jobs end within the first.
    """
    plain = Rules()
    return Rules(
        preempts=reader.flag("TUNEFORGE_SCHEDULER_PREEMPTION", default=True),
        quantum_ms=_ms(reader.seconds("TUNEFORGE_SCHEDULER_QUANTUM_S", default=plain.quantum_ms / 1000)),
        reserve_after_ms=_ms(
            reader.seconds("TUNEFORGE_SCHEDULER_RESERVE_AFTER_S", default=plain.reserve_after_ms / 1000)
        ),
        promote_after_ms=_ms(
            reader.seconds("TUNEFORGE_SCHEDULER_PROMOTE_AFTER_S", default=plain.promote_after_ms / 1000)
        ),
        level_ends_ms=_levels(reader),
    )


def _levels(reader: Environment) -> tuple[int, ...]:
    name = "TUNEFORGE_SCHEDULER_LEVELS_H"
    text = reader.text(name).strip() or "1,10"
    try:
        hours = [float(part) for part in text.split(",")]
    except ValueError:
        hours = []
    if not hours or any(not 0 < each < 1e6 for each in hours) or sorted(set(hours)) != hours:
        reader.refuse(name, "device-hours > 0, ascending, with commas, e.g. 1,10")
        return Rules().level_ends_ms
    return tuple(round(each * HOUR_MS) for each in hours)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
