"""Explanations, simulations and promises -> messages. Jobs of projects that the caller may not read have no names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from services.scheduler.foresight.blockers import Blocker
from services.scheduler.foresight.explaining import MOST, Explanation, Progress, Told, View
from services.scheduler.foresight.nodes_said import Finding
from services.scheduler.foresight.places import Place
from services.scheduler.foresight.promises import Event, Promise, Quality, Span
from services.scheduler.foresight.simulating import Simulated
from services.scheduler.wire.times import optional_timestamp, timestamp
from tuneforge.names import JobName
from tuneforge.v1 import explanations_pb2 as pb

DELAYED_MOST = 100
"""Delayed jobs that an answer names."""

NameOf = Callable[[int], str]
"""Gives the name of a job by number; empty: the caller may not read it, or it has ended."""


def names_for(view: View, may_read: Callable[[str], bool]) -> NameOf:
    """Returns how jobs are named to a caller.

    Args:
        view: The moment.
        may_read: Whether the caller may read a project.
    """

    def name_of(number: int) -> str:
        job = view.moment.jobs.get(number)
        if job is not None:
            return str(job.name) if may_read(job.name.project) else ""
        name, _ = view.moment.seen.dependencies.get(number, ("", None))
        return name if name and may_read(JobName.parse(name).project) else ""

    return name_of


def explanation_to_proto(found: Explanation, name_of: NameOf) -> pb.JobExplanation:
    """Converts an explanation."""
    message = pb.JobExplanation(
        name=found.name,
        state=str(found.state),
        reason=found.reason,
        summary=found.summary,
        blockers=blockers_to_proto(found.blockers, name_of),
        preemptors=[pb.Preemptor(job=name_of(each.job), why=each.why, is_due=each.is_due) for each in found.preemptors],
        nodes=findings_to_proto(found.findings),
        observe_time=timestamp(found.observe_ms),
        num_may_overtake=found.may_overtake,
    )
    if found.place is not None:
        message.position.CopyFrom(place_to_proto(found.place, name_of))
    if found.told is not None:
        message.forecast.CopyFrom(told_to_proto(found.told))
    if found.progress is not None:
        message.progress.CopyFrom(_progress(found.progress))
    return message


def simulation_to_proto(found: Simulated, name_of: NameOf) -> pb.JobSimulation:
    """Converts a simulation."""
    message = pb.JobSimulation(
        forecast=told_to_proto(found.told),
        nodes=[f"nodes/{node}" for node in found.nodes],
        displaced=[
            pb.DisplacedJob(job=name_of(job), costs_device_seconds=cost_ms / 1000) for job, cost_ms in found.displaced
        ],
        delayed=[
            pb.DelayedJob(
                job=name_of(each.job),
                delay_seconds=(each.after_ms - each.before_ms) / 1000,
                end_before=timestamp(each.before_ms),
                end_after=timestamp(each.after_ms),
            )
            for each in found.delayed[:DELAYED_MOST]
        ],
        num_delayed=len(found.delayed),
        blockers=blockers_to_proto(found.blockers, name_of),
        nodes_checked=findings_to_proto(found.findings),
    )
    if found.place is not None:
        message.position.CopyFrom(place_to_proto(found.place, name_of))
    return message


def told_to_proto(found: Told) -> pb.JobForecast:
    """Converts a forecast."""
    return pb.JobForecast(
        start=_span(found.start),
        end=_span(found.end),
        basis=pb.ForecastBasis.Value(f"FORECAST_BASIS_{found.basis}"),
        why=found.why,
        make_time=timestamp(found.make_ms),
        num_looked_at=found.looked_at,
        num_waiting=found.waiting,
    )


def promise_to_proto(found: Promise, job: JobName | None) -> pb.Forecast:
    """Converts a promise and what became of it."""
    return pb.Forecast(
        job=str(job) if job is not None else "",
        event=pb.ForecastEvent.Value(f"FORECAST_EVENT_{found.event}"),
        source=pb.ForecastSource.Value(f"FORECAST_SOURCE_{found.source}"),
        make_time=timestamp(found.make_ms),
        told=_span(found.told),
        real_time=optional_timestamp(found.real_ms),
        outcome=pb.ForecastOutcome.Value(f"FORECAST_OUTCOME_{found.outcome}"),
    )


def qualities_to_proto(found: Mapping[Event, Quality]) -> list[pb.ForecastCalibration]:
    """Converts how good promises were; kinds of which none was decided are left out."""
    return [
        pb.ForecastCalibration(
            event=pb.ForecastEvent.Value(f"FORECAST_EVENT_{event}"),
            decided=each.decided,
            kept_share=each.kept_share,
            median_ratio=each.median_ratio,
            low_ratio=each.low_ratio,
            high_ratio=each.high_ratio,
            is_applied=each.is_applied,
        )
        for event, each in found.items()
        if each.decided
    ]


def blockers_to_proto(found: Iterable[Blocker], name_of: NameOf) -> list[pb.Blocker]:
    """Converts what a job waits for."""
    return [
        pb.Blocker(
            reason=pb.BlockerReason.Value(f"BLOCKER_REASON_{each.reason}"),
            message=each.message,
            cure=each.cure,
            jobs=_names(each.jobs, name_of),
            num_jobs=len(each.jobs),
        )
        for each in found
    ]


def place_to_proto(found: Place, name_of: NameOf) -> pb.QueuePosition:
    """Converts where a job stands."""
    return pb.QueuePosition(
        position=found.position,
        waiting=found.waiting,
        position_in_project=found.position_in_project,
        waiting_in_project=found.waiting_in_project,
        ahead=_names(found.ahead, name_of),
        priority=found.priority,
        is_over_share=found.is_over_share,
        level=found.level,
        attained_device_seconds=found.attained_ms / 1000,
        project_usage=found.usage_by_weight_ms / 1000,
        words=found.words,
    )


def findings_to_proto(found: Iterable[Finding]) -> list[pb.NodeFinding]:
    """Converts what nodes say."""
    return [
        pb.NodeFinding(
            node=f"nodes/{each.node}",
            could_hold=each.could_hold,
            why_not=each.why_not,
            free_slots=max(0, each.free_slots),
            slots=each.slots,
            missing_bytes=each.missing_bytes,
        )
        for each in found
    ]


def _progress(found: Progress) -> pb.RunProgress:
    steps = found.time.steps if found.time is not None else None
    return pb.RunProgress(
        step=found.step,
        total_steps=found.total_steps,
        step_seconds=steps.median_s if steps is not None else 0.0,
        step_seconds_low=steps.low_s if steps is not None else 0.0,
        step_seconds_high=steps.high_s if steps is not None else 0.0,
        steps_measured=steps.count if steps is not None else 0,
        nodes=[f"nodes/{node}" for node in found.nodes],
        stop_costs_device_seconds=found.stop_costs_ms / 1000,
    )


def _names(numbers: Sequence[int], name_of: NameOf) -> list[str]:
    named: list[str] = []
    for number in numbers:
        if name := name_of(number):
            named.append(name)
        if len(named) == MOST:
            break
    return named


def _span(found: Span | None) -> pb.TimeInterval | None:
    if found is None:
        return None
    return pb.TimeInterval(
        expected=timestamp(found.expected_ms),
        earliest=timestamp(found.earliest_ms),
        latest=timestamp(found.latest_ms),
    )
