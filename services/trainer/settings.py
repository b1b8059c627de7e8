"""The trainer's knobs, read from the environment."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.grpckit.settings import DEFAULT_DATA, Environment, ServerSettings, peer_address
from services.modelkit.trust import TrustSettings
from services.trainer.spool import LIMIT_BYTES
from tuneforge.names import is_id

DEFAULT_PORT = 7103
TOKENS_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """Settings of one node."""

    server: ServerSettings
    """What every service has."""
    node_id: str
    """Id of the node, stable over restarts. TUNEFORGE_TRAINER_NODE; default: made from the host's name."""
    advertise: str = ""
    """`host:port` at which the scheduler reaches this node; empty: where it listens. TUNEFORGE_TRAINER_ADVERTISE."""
    schedulers: tuple[str, ...] = ()
    """`host:port` of the scheduler that manages the node, and of those that stand by; none: nobody manages it.
    TUNEFORGE_SCHEDULER_ADDRESS, with commas between."""
    registry: str = "127.0.0.1:7101"
    """`host:port` that inputs are fetched from and artifacts stored at. TUNEFORGE_REGISTRY_ADDRESS."""
    inputs: Path = DEFAULT_DATA / "inputs"
    """Folder below which local paths of an unmanaged node must lie. TUNEFORGE_TRAINER_INPUTS."""
    slots: int = 0
    """Attempts at once; 0: one for each accelerator, or one on a CPU: two runs on the same cores are not faster than
    one after the other. TUNEFORGE_TRAINER_SLOTS."""
    cpu_millis: int = 0
    """Processor share for attempts in thousandths of a core; 0: all cores that the process may use.
    TUNEFORGE_TRAINER_CPU_MILLIS."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a spec can ask for, a JSON object of texts. TUNEFORGE_TRAINER_LABELS."""
    drain_grace_s: float = 30.0
    """How long workers may take to save their state when the trainer is stopped, in seconds. 30: as `StopAttempt`; half
    of what the launcher and Kubernetes wait. TUNEFORGE_TRAINER_DRAIN_GRACE."""
    spool_bytes: int = LIMIT_BYTES
    """Most bytes of unacknowledged events of one attempt. 256 MiB: a million steps. TUNEFORGE_TRAINER_SPOOL_BYTES."""
    tokens_bytes: int = TOKENS_BYTES
    """Most bytes of rows that are kept as tokens for later attempts; 0: none are. 4 GiB: 800 million tokens.
    TUNEFORGE_TRAINER_TOKENS_BYTES."""
    cache_bytes: int = 0
    """Most bytes of models and rows that are kept by digest; those that were not used for longest go first, and what a
    running attempt uses stays. 0: 80 % of what is free at the start, with what is kept already.
    TUNEFORGE_TRAINER_CACHE_BYTES."""

    trust: TrustSettings = field(default_factory=TrustSettings)
    """Whose signatures over models and rows count; read by each worker for itself."""

    @property
    def is_managed(self) -> bool:
        """Whether a scheduler manages the node."""
        return bool(self.schedulers)

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> TrainerSettings:
        """Reads the settings.

        Raises:
            SettingsError: Something is wrong; names every variable that is.
        """
        env = Environment(variables)
        server = ServerSettings.from_env("trainer", DEFAULT_PORT, env=env)
        grace_s = env.seconds("TUNEFORGE_TRAINER_DRAIN_GRACE", default=30.0, minimum=0.0, maximum=600.0)
        settings = cls(
            # Calls that watch go on while workers save, so the server's own patience comes after theirs.
            server=replace(server, drain_s=min(server.drain_s, 10.0)),
            node_id=_node_id(env),
            advertise=env.address("TUNEFORGE_TRAINER_ADVERTISE", default=""),
            schedulers=env.addresses("TUNEFORGE_SCHEDULER_ADDRESS"),
            registry=peer_address("registry", 7101, env),
            trust=TrustSettings.from_env(env),
            inputs=env.folder("TUNEFORGE_TRAINER_INPUTS", default=server.data.parent / "inputs"),
            slots=env.integer("TUNEFORGE_TRAINER_SLOTS", default=0, minimum=0, maximum=64),
            cpu_millis=env.integer("TUNEFORGE_TRAINER_CPU_MILLIS", default=0, minimum=0, maximum=10_000_000),
            labels=_labels(env),
            drain_grace_s=grace_s,
            spool_bytes=env.integer("TUNEFORGE_TRAINER_SPOOL_BYTES", default=LIMIT_BYTES, minimum=1024 * 1024),
            cache_bytes=env.integer("TUNEFORGE_TRAINER_CACHE_BYTES", default=0, minimum=0),
            tokens_bytes=env.integer("TUNEFORGE_TRAINER_TOKENS_BYTES", default=TOKENS_BYTES, minimum=0),
        )
        env.finish()
        return settings


def _node_id(env: Environment) -> str:
    name = "TUNEFORGE_TRAINER_NODE"
    given = env.text(name).strip()
    if not given:
        return _id_from(socket.gethostname())
    if not is_id(given):
        env.refuse(name, "1 to 63 of a-z 0-9 -, beginning with a letter, not ending with -")
    return given


def _id_from(hostname: str) -> str:
    """Makes an id from a host's name; hosts may be called `10-0-0-1` or `Lab_3`."""
    text = re.sub(r"[^a-z0-9]+", "-", hostname.partition(".")[0].lower()).strip("-")
    text = text if text[:1].isalpha() else f"node-{text}"
    return text[:63].rstrip("-")


def _labels(env: Environment) -> Mapping[str, str]:
    name = "TUNEFORGE_TRAINER_LABELS"
    text = env.text(name).strip()
    if not text:
        return {}
    try:
        labels = json.loads(text)
    except ValueError:
        labels = None
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        env.refuse(name, 'a JSON object of texts, such as {"zone": "a"}')
        return {}
    return labels
