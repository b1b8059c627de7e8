"""What the scheduler knows of a sweep and its trials, as plain values; the calls are in `sweeps.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from google.protobuf.json_format import MessageToDict

from tuneforge import _wire
from tuneforge.specs.spec import TrainingSpec
from tuneforge.specs.wire import spec_from_proto
from tuneforge.v1 import sweeps_pb2 as pb
from tuneforge.values import Failure, VersionRef, Word


class SweepState(Word):
    """States of a sweep."""

    UNKNOWN = "UNKNOWN"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    """Its open trials are being stopped."""
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether a sweep in this state will never leave it."""
        return self in {SweepState.SUCCEEDED, SweepState.FAILED, SweepState.CANCELLED}


class TrialState(Word):
    """States of a trial."""

    UNKNOWN = "UNKNOWN"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PRUNED = "PRUNED"
    """It was not worth its device."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """What a round takes."""

    trials: int
    train_fraction: float
    """Share of the rows that each trial learns from."""
    device_seconds: float
    """0: not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepCost:
    """What a sweep takes when every trial runs to its end."""

    trials: int
    data_shares: float
    """Sum over the trials of the share of the rows that each learns from."""
    device_seconds: float
    """0: not known yet."""
    lowest_device_seconds: float
    highest_device_seconds: float
    rounds: tuple[RoundCost, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of a sweep with parameters of its own."""

    name: str
    """`projects/{project}/sweeps/{sweep}/trials/{trial}`."""
    round: int
    parameters: Mapping[str, Any]
    """By field: numbers, strings, booleans, or lists of them."""
    digest: str
    """Identity of its run."""
    state: TrialState
    message: str
    """Why it is in this state; empty where that is plain."""
    job: str
    """Empty: its parameters were refused."""
    value: float | None
    """What it counts as."""
    reports: tuple[tuple[int, float], ...]
    """Steps and values of its metric; empty in lists."""
    step: int
    total_steps: int
    stop_step: int
    """Where it was found not worth its device; 0: it was not."""
    device_seconds: float
    version: VersionRef | None
    create_time: datetime
    end_time: datetime | None

    @property
    def number(self) -> int:
        """Its number in the sweep, from 1."""
        return int(self.name.rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search over fields of a training spec."""

    name: str
    """`projects/{project}/sweeps/{sweep}`."""
    spec: TrainingSpec
    """What all trials have in common."""
    plan: Mapping[str, Any]
    """What is searched, and how: the JSON form of `SweepPlan`."""
    state: SweepState
    reason: str
    message: str
    failure: Failure | None
    combinations: int
    """Points of its space; 0: no end of them."""
    cost: SweepCost
    round: int
    counts: Mapping[str, int]
    """Trials by state, in small letters: `running`, `succeeded`, `pruned`, `failed`, `cancelled`."""
    best: Trial | None
    device_seconds: float
    create_time: datetime | None
    end_time: datetime | None
    creator: str
    labels: Mapping[str, str]
    revision: int

    @property
    def id(self) -> str:
        """Last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def metric(self) -> str:
        """What its trials are compared by."""
        return str(self.plan.get("goal", {}).get("metric", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """How much each parameter matters for the value."""

    shares: Mapping[str, float]
    """Shares of 1 by field; empty with fewer than four trials that have succeeded."""
    round: int
    trials: int
    """Trials that were looked at."""


def trial_from_proto(message: pb.Trial) -> Trial:
    """Converts a trial."""
    parameters = MessageToDict(message, preserving_proto_field_name=True).get("parameters", {})
    return Trial(
        name=message.name,
        round=message.round,
        parameters=MappingProxyType(dict(sorted(parameters.items()))),
        digest=message.digest,
        state=_wire.word(TrialState, pb.TrialState.DESCRIPTOR, message.state),
        message=message.message,
        job=message.job,
        value=message.value if message.HasField("value") else None,
        reports=tuple((each.step, each.value) for each in message.reports),
        step=message.step,
        total_steps=message.total_steps,
        stop_step=message.stop_step,
        device_seconds=message.device_seconds,
        version=_wire.version_ref(message.version),
        create_time=_wire.instant(message.create_time),
        end_time=_wire.instant_or_none(message.end_time),
    )


def sweep_from_proto(message: pb.Sweep) -> Sweep:
    """Converts a sweep."""
    cost = message.cost
    counts = ("running", "succeeded", "pruned", "failed", "cancelled")
    return Sweep(
        name=message.name,
        spec=spec_from_proto(message.spec),
        plan=MessageToDict(message.plan, preserving_proto_field_name=True),
        state=_wire.word(SweepState, pb.SweepState.DESCRIPTOR, message.state),
        reason=message.reason,
        message=message.message,
        failure=_wire.failure(message.failure),
        combinations=message.combinations,
        cost=SweepCost(
            trials=cost.trials,
            data_shares=cost.data_shares,
            device_seconds=cost.device_seconds,
            lowest_device_seconds=cost.lowest_device_seconds,
            highest_device_seconds=cost.highest_device_seconds,
            rounds=tuple(
                RoundCost(trials=each.trials, train_fraction=each.train_fraction, device_seconds=each.device_seconds)
                for each in cost.rounds
            ),
        ),
        round=message.round,
        counts=MappingProxyType({name: getattr(message.counts, name) for name in counts}),
        best=trial_from_proto(message.best) if message.HasField("best") else None,
        device_seconds=message.device_seconds,
        create_time=_wire.instant_or_none(message.create_time),
        end_time=_wire.instant_or_none(message.end_time),
        creator=message.creator,
        labels=_wire.frozen(message.labels),
        revision=message.revision,
    )
